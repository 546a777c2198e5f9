"""Parts of NetBox's pages that are ours: buttons, cards and their rows, the chart, and the tab on objects."""
