"""NetBox finds the classes by the model's name. GraphQL names need our prefix: all apps share them."""
