"""Mini crosswords of five by five letters."""
