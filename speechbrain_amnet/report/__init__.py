"""Tables and pictures, made from the recorded results of runs."""
