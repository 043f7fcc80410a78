"""What in a data set gives the labels away without a look at the pixels."""
