"""Running a recorded run again and comparing the results."""
