"""Words that headers have, in the order they have them: deflate may repeat them from the first byte on.

Part of the format: a file written with one dictionary is read with the same one, so it is never changed. What a header
is most likely to hold stands last, where it costs least to repeat.
"""

__all__ = ["DICTIONARY"]

DICTIONARY = (
    b'running_mean.running_var.num_batches_tracked.encoder.layer.decoder.attention.self.query.key.value.dense.projection.'
    b'pos_embed.cls_token.patch_embed.stem.stages.downsample.shortcut."/model.layers.0.self_attn.q_proj",".k_proj",'
    b'".v_proj",".o_proj","..mlp.gate_proj",".up_proj",".down_proj","...1.self_attn.q_proj",["..input_layernorm.weight",'
    b'["..post_attention_layernorm.weight",["....embed_tokens.weight",["....norm.weight",["..norm1.bias",'
    b'["..norm2.weight","/blocks.0.attn.qkv",".proj","..mlp.fc1",".fc2","...1.attn.qkv","/features.0.0","..1.conv.0.0",'
    b'"...1.0",".squeeze",".expand1x1",".expand3x3","..4.squeeze","/classifier.1","/fc","/head","/linear",'
    b'"/layer1.0.bn1",".conv2","..1.conv1",".bn1",".bn2"{"kind":"power-of-two","nearest":"log"{"kind":"dense-shift"'
    b'{"kind":"ternary"{"kind":"kmeans","scaled":false,"zero":true{"kind":"entropy-constrained"{"kind":"icquant",'
    b'"outliers":0.05,"index":["per":"layer","levels":"kmeans"{"kind":"uniform","bits":8,"group":128,"half":true,'
    b'"symmetric":true,"range":"mse"{"kind":"nearest"{"kind":"adaround"{"kind":"qronos","sparsity":0.5,"refits":4,'
    b'"input_range":"kl","coders":["ans","sham","huffman","ham""it has no weights"'
    b'"it was never called (its weight may be read by its parent)"'
    b'"its weight is tied to that of \'model.embed_tokens\', and stored once"'
    b'"an embedding: its rows are looked up, not multiplied","lm_head":"the plan leaves it in float",'
    b'"float32":["float64":["bfloat16":["int64":[["bias","model":"digits","preset":"nearest","preset":"paper",'
    b'"preset":"best","preset":"light","search":"cora","search":"greedy","search":"joint","search":"uniform",'
    b'"search":"uniformranks","bits":2,"bits":3,"bits":8,"budget":0.25,"activations":8,'
    b'{"codec":{"kind":"uniform","bits":8},"fit":"svd","rounds":1},'
    b'{"codec":{"kind":"rate-uniform","bits":8,"rate":"#"},"rounder":{"kind":"nearest"},"fit":"svd","rounds":1},'
    b'{"codec":{"kind":"rate-uniform","rate":"#"}},{},{"model":null,"preset":"fast","search":"rates","bits":4,'
    b'"budget":0.0,"activations":null,"seed":0,"iterations":0,"dtype":"float32","plan":{"format":1,'
    b'"default":{"codec":{"kind":"rate-uniform","rate":3.5},"rounder":{"kind":"gptq","sweeps":3},"rank":0,'
    b'"adapter_bits":8,"fit":"loss","rounds":4,"bias_correction":true,"sequential":true,"inputs":null,'
    b'"input_range":"mse"},"layers":[{},{}]},"layers":["/conv1",".layer1.0.conv1",".conv2","..1.conv1"],'
    b'"folded":[".bn1",".bn1"],"skipped":{},"tensors":{"float16":["bias","bias"]},"coders":["deflate"],'
    b'"coded":[1,1,1,0,1,0],"shapes":[1,1,1,16,16,32,64,64,128,144,256,288,512,576]}'
)  # fmt: skip
