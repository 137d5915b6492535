"""What a run will need, known before it: parameters, memory, products, reading, time. Stands on tasks, beside evaluation."""
