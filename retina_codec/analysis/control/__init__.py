"""Control of classes by channels held back."""
