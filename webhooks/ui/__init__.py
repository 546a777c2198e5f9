"""Parts of our pages in NetBox."""
