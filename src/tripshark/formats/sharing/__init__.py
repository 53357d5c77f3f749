"""Evidence made fit to be handed on: payloads cut or secrets blanked, addresses replaced by pseudonyms."""
