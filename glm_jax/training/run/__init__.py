"""A run in its workdir: started, resumed, interrupted, owned by one process."""
