"""Whatever is a model, opened: its module, preprocessing and class names, for teachers and students
alike. What makes a teacher believed is in `teachers/`."""
