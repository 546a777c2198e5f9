"""What tests share. Its modules have one name each, `support.…`; no test imports from another test."""
