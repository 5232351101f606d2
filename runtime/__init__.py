"""The library that Lambdas, containers and the `goldlake` command run. It never imports pulumi."""
