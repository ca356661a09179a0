"""`invigilator up`: the engines, the migrations and the Procfile's processes, as one."""
