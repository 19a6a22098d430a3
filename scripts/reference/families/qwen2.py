from draw import Case
from sizes import BASE, Q4

CONFIG = BASE | dict(model_type="qwen2", tie_word_embeddings=True)
CASES = [Case("f32", CONFIG), Case("q4", CONFIG, quant=Q4)]
