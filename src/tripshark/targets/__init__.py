"""Who runs where: namespaces and the configuration's static map."""
