"""What a stack would register, and what that changes: `goldlake preview`, from the recording alone."""
