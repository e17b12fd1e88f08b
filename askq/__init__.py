"""What both programs share: the job store, the assistant files, the local API and the embedded parts."""
