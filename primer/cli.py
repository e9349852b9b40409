from primer.errors import PrimerError
