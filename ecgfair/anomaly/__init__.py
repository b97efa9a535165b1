"""What is strange about a record and where: scores, maps, their calibration, and how they are put to the test."""
