"""What is true of a song, put into words."""
