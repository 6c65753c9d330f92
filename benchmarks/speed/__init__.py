"""Speed: what each part costs on this machine, beside another checkout in turns."""
