"""A Trino for the laptop, when asked for: the server from Maven Central, a JRE, catalogues on the emulator."""
