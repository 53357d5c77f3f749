"""Evidence made fit to be handed on."""
