"""The laptop platform: an AWS emulator, a local Redshift, and deployment of the program into them."""
