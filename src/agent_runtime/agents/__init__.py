"""Language models behind the libraries that reach them; each library is imported by its own module alone."""
