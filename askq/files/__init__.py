"""Files of questions and answers: which may be attached, how they are named, and the folder that keeps them."""
