"""Every nipype node of this program, thin: load, call, save."""
