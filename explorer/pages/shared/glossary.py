"""What every term on the pages means, in one place; widgets show it as help."""

TERMS = {
    "teacher": "The model you have. It is only measured, never changed; students learn from it.",
    "student": "A smaller model cut from the teacher and taught to imitate it.",
    "layers": (
        "How many of the teacher's layers the student keeps. Fewer layers are faster and "
        "cheaper, and know less."
    ),
    "layer_choice": (
        "Which layers stay. By importance: those that change the hidden state most on a sample "
        "of the corpus. Evenly: spaced out over the depth. One by one: again and again the layer "
        "goes whose loss raises the KL to the teacher least. Only for fewer layers and for both."
    ),
    "kind": (
        "Fewer layers is the fastest student of a size. Narrower keeps all layers and cuts hidden "
        "size and MLP channels. Both shares the cut out evenly. Existing model takes a smaller "
        "model with the same tokenizer. From scratch is the teacher's architecture with random "
        "weights: the baseline that shows what the cut is worth."
    ),
    "target": (
        "How many parameters the student has. The nearest possible sizes are taken, within about "
        "1 %. Choose none to measure only the teacher."
    ),
    "checkpoint": "Smaller models with the teacher's tokenizer. Nothing is cut; they are taught.",
    "start_from": (
        "A cut of more than half of the parameters goes better in two steps: cut and teach a "
        "larger student, then cut the next one from it. The teacher stays the teacher."
    ),
    "retention": (
        "Share of the teacher's capability that the student keeps, corrected for guessing: "
        "(student − chance) / (teacher − chance), the mean over tasks. The bar is a 95 % interval, "
        "bootstrapped over the same documents for both models."
    ),
    "raw_ratio": (
        "Student's score divided by the teacher's, without a correction for guessing. Published "
        "claims use it; it flatters small models."
    ),
    "chance": "The score of a model that only guesses.",
    "ttft": "Time to first token: from the request to the first token of the answer.",
    "tpot": (
        "Time per output token after the first: (latency − time to first token) / "
        "(output tokens − 1). The median of all timed answers."
    ),
    "latency": "From the request to the last token of the answer.",
    "usd_per_hour": (
        "What serving the teacher's present load costs per hour with this model: the device's "
        "price times the share of the device that the load needs."
    ),
    "usd_per_mtok": (
        "US dollars per million output tokens at the stated utilisation, time to first token "
        "included: the device's price per hour / (output tokens per second while it answers × "
        "utilisation × 3,600) × 1,000,000. It holds for the prompt and answer lengths at which "
        "the run was timed."
    ),
    "parameters": "Number of weights in the model.",
    "memory": "The most memory that was in use while the model was timed.",
    "utilisation": (
        "Share of the paid hours in which the device serves requests: 50 % unless you change it. "
        "Half the utilisation doubles the cost per token."
    ),
    "price": (
        "What this device costs per hour. Prices come from dated lists or from you; none is "
        "ever guessed."
    ),
    "frontier": "Runs that no other run beats on both axes at once.",
    "hidden_runs": (
        "Runs that somebody hid. They are left out of charts and tables, and nothing of them is "
        "lost; a hidden teacher's run is still what its students are compared with."
    ),
    "task": "One test of lm-evaluation-harness. Pick one to see the capability on it alone.",
    "device": "The machine or accelerator on which the run was timed. Compare within one device.",
    "machine_busy": (
        "Other processes used the machine while this run was timed: more than a fifth of its "
        "processors' time, or the same GPU. Its times are shown in grey, and no frontier, finding, "
        "estimate or cost uses them. Its scores count as always. Time it again on an idle machine; "
        "nothing is trained or asked again."
    ),
    "distilled": "Whether the student was taught after it was cut, or left as it was.",
    "corpus": (
        "The text that students learn from. The starter corpus ships with us; a file is .txt, "
        ".jsonl with a text field, or .parquet with a text column."
    ),
    "method": (
        "Distributions say how likely every next token is: the most a student can learn from. "
        "Cached, the teacher is asked once for all students; live, at every step. Its text is the "
        "road for a student with another tokenizer. The control arm learns from the text alone."
    ),
    "loss": (
        "How the student's distribution is compared with the teacher's. Forward KL covers all that "
        "is likely, reverse KL keeps away from what is unlikely; the others lie between."
    ),
    "beta": "0 is the forward KL, 1 the reverse KL.",
    "control": (
        "Teaches each student once more, on the same text with the same budget and without the "
        "teacher: only then can be said whether distillation helped. Doubles the training."
    ),
    "on_policy": (
        "Share of the steps whose text the student writes and the teacher judges. Slower; it "
        "learns from its own mistakes."
    ),
    "hidden": "Adds how far each layer's states are from the teacher's. 0 leaves it out.",
    "max_tokens": "How much text a student reads while it learns. A shorter corpus is read again.",
    "tasks": (
        "Names of lm-evaluation-harness tasks or groups. starter is the suite that ships with us "
        "and runs offline."
    ),
    "output_type": (
        "How a task is answered. Choices: the likeliest of several. Continuation: whether the "
        "right one is the likeliest of all. Written: the model writes, and its text is checked. "
        "Perplexity: how well it foresees a text."
    ),
    "task_kind": "A group or tag stands for several tasks; a run that asks for it asks for each.",
    "own_task": (
        "It is kept in the results folder, so every machine that works on it can ask it. Nothing "
        "in the file is executed."
    ),
    "own_question": "The column whose text a model is asked.",
    "own_choices": "One column that holds lists of choices, or several that hold a choice each.",
    "own_answer": (
        "The right choice: its text, its letter, or its number from 0. Of a written answer, the "
        "text that is expected, whatever its case and the space around it."
    ),
    "replace": (
        "The task gets the next version. Runs that were asked the earlier one keep their scores."
    ),
    "data_here": (
        "The documents are on this machine, so the task can be asked without a connection. Else "
        "the first run fetches them."
    ),
    "include_path": (
        "A folder on this machine with your own tasks in lm-evaluation-harness's YAML format. "
        "Choose one that the configuration lists, or type its path. Python code in it runs only "
        "where the configuration allows it."
    ),
    "task_folder": (
        "A folder with more tasks, from task_folders in this server's configuration file. "
        "explorer doctor says where that file is."
    ),
    "limit": (
        "Documents per task: a seeded, stratified sample, the same for every model. More documents "
        "take longer and show smaller differences. Empty takes all."
    ),
    "detectable": (
        "The smallest difference from the teacher, in points of score, that this many documents "
        "show four times out of five (paired test, 5 % level)."
    ),
    "gguf": (
        "The teacher and every student once more as GGUF in llama.cpp, tested and timed on the "
        "processor (choose Device cpu): is it better to quantise the teacher or to distil it? "
        "Needs the extra edge."
    ),
    "torch_bits": (
        "The teacher and every student once more in torch with the weights of linear layers "
        "rounded, tested and timed. 8 bits everywhere, 4 on an NVIDIA GPU. Needs the extra quant."
    ),
    "teacher_bits": (
        "Rounds the teacher's weights while it teaches, to save memory; its lessons change a "
        "little. Students are still cut from the whole teacher and compared with it. Needs the "
        "extra quant; 4 bits an NVIDIA GPU."
    ),
    "workload": (
        "Lengths of prompt and answer of a usual kind of request, or lengths of your own. Compare "
        "times only of the same lengths."
    ),
    "runtime": (
        "How transformers runs a model: as it is, or compiled with a cache of fixed size, which "
        "is meant for CUDA. GGUF files and endpoints have their own runtime."
    ),
    "levels": (
        "Requests at once, level by level: batches on this device, clients at an endpoint. The "
        "sweep ends where a level brings no more tokens a second. Empty measures none."
    ),
    "repeats": "Timed answers of each model, student and teacher in turns. All are kept.",
    "warmup": "Answers before the timing that are not counted.",
    "prompt_tokens": "Length of the prompt in the timing.",
    "output_tokens": "Length of the answer in the timing; always this long.",
    "batch_size": "Sequences answered together.",
    "kd_weight": (
        "Share of learning from the teacher's distributions; the rest is from the text alone."
    ),
    "precision": (
        "Number format of the products while a student is taught; its weights stay float32. auto "
        "is bfloat16 on CUDA and float32 on a processor. Processors with instructions for bfloat16 "
        "teach a good deal faster in it."
    ),
    "vocab_sample": (
        "Trains on the teacher's top tokens plus this many randomly sampled others instead of the "
        "whole vocabulary. Faster for large vocabularies, at hardly any loss. Leave it empty to "
        "train on all. Only with cached distributions."
    ),
    "train_layers": (
        "Before the first layer that was cut, a student computes what its teacher does. The second "
        "choice leaves those layers as they are where at least half of the teacher's stay: faster, "
        "with less memory, and hardly less close. Smaller students need all their layers."
    ),
    "temperature": "Softens both models' distributions in the loss; 1 leaves them as they are.",
    "learning_rate": "The highest step size of the optimiser.",
    "name": "Begins every run's name. Small letters, digits, dots, dashes, underscores.",
    "run_device": "auto takes CUDA when there is one, else the CPU.",
    "verdict": (
        "better or worse where the test of the paired answers, adjusted for the number of tasks "
        "(Holm), has p below 0.05; else inconclusive: more documents may tell."
    ),
    "api_test": (
        "Ask the endpoint tasks, with lm-eval's own models for APIs. Every answer is kept when it "
        "comes, and its tokens are counted."
    ),
    "api_at_once": "Requests under way at the same time. Lower it where the server says 429.",
    "api_usd": (
        "Ask nothing when the tasks may cost more than this: the prompts, and answers at their "
        "longest, at the price that is known."
    ),
    "api_cost": (
        "Makes every prompt and counts its tokens, as explorer run --dry-run does; the endpoint is "
        "asked nothing. The dollars go from the prompts alone to answers at their "
        "longest, at the price that is known."
    ),
    "api_key": (
        "NAME of the environment variable that holds the key on the machine that runs the job. "
        "As usual is EXPLORER_ENDPOINT_KEY, or the seller's own variable."
    ),
    "api_tokenizer": (
        "The model's tokenizer: a hub id, a folder, starter. Needed to score given answers; "
        "without it only tasks in which the model writes can be asked."
    ),
    "import_name": (
        "Begins the new run's id: small letters, digits, dot, dash and underscore. The rest is a "
        "hash of the files, so importing them twice makes one run."
    ),
    "reference": (
        "The run that the others are held against, on the same documents. Runs that were measured "
        "in another way (other shots, another version) are refused, with the reason on hover."
    ),
    "outcome": (
        "Lost: the reference has it right and the run has not. Gained: the other way round. "
        "Choose one, or none to see all documents."
    ),
    "yaml": "The same order as a file: `explorer sweep FILE` does what the button does.",
    "kl": (
        "How far the student's next-token distributions are from the teacher's on text that was "
        "kept aside, in nats per token. 0 is identical."
    ),
    "basis": "Measured here, published by others, or estimated. They look different on the chart.",
    "seed": "Start of the random numbers: the same seed gives the same run.",
    "published_axis": (
        "Size: billions of parameters, where they are published. API price: what an API "
        "charges per million output tokens, dated. $/hour: estimated rent of the cheapest "
        "devices that hold the weights and eight requests."
    ),
    "published_retention": (
        "Raw: student's score / larger model's score, the mean over benchmarks, as claims have "
        "it. Corrected: both less the score of a guesser, over the benchmarks whose chance level "
        "is known."
    ),
    "bits": (
        "Bits of a weight: fewer need less memory, and cost some capability that no published "
        "score here knows of."
    ),
    "relation": (
        "Distilled: the publisher says so. Smaller sibling: a smaller model of the same maker, "
        "of which nobody says how it was made. Not distilled: the publisher says that it was not."
    ),
    "traffic": "Requests per minute at the busiest time: the fleet is sized for it.",
    "input_tokens": (
        "Length of a prompt. Time to first token is taken in proportion to the measured prompt, so "
        "stay near it."
    ),
    "answer_tokens": "Length of an answer.",
    "limit_ttft": "At most this median time to the first token. Empty is no limit.",
    "limit_tpot": "At most this median time per output token. Empty is no limit.",
    "price_set": (
        "Your prices: those you took or wrote. Cheapest and dearest listed: the ends of the dated "
        "price book for such a device."
    ),
    "api": "An API to compare with; each price is dated. A name that is not listed, as in "
    "anthropic/claude-sonnet-4-5, is looked up in the package genai-prices; the first entry "
    "takes prices of your own.",
    "api_break_even": (
        "API break-even: the share of a device's throughput from which on the device is cheaper "
        "than the API. Above 100 % the API is cheaper at any traffic."
    ),
    "planned_utilisation": (
        "Share of a device's measured throughput that is planned with, and of the paid hours in "
        "which it serves requests. The rest is reserve for bursts and for hours without requests. "
        "Half the utilisation doubles the cost per token."
    ),
    "split": (
        "Prefill and decode split the cost of a request of the lengths above, at the same "
        "utilisation: reading the prompt per million input tokens, writing the answer after its "
        "first token per million output tokens. Blended is the whole request per million input "
        "and output tokens."
    ),
    "concurrency": "Requests that are held in memory and answered at once.",
    "efficiency": (
        "Share of the device's published peak that a program reaches. 100 % is the ceiling, which "
        "none does; a measured run tells, with explorer fit --run."
    ),
    "skew": (
        "The share of one model that is mixed into the other before they are compared, so that no "
        "token can cost more than log(1 / skew). 0 is the plain KL."
    ),
    "tune": (
        "Every variant is taught a little, the better ones longer. The lowest KL to the teacher on "
        "text kept aside wins. The trainings go side by side where the queue has room."
    ),
    "tune_run": "The student whose teaching is to be improved; it takes part as it is.",
    "tune_rounds": "How often the better ones go on. The last round has the whole budget.",
    "tune_keep": ("Keeps 1 in N variants each round and trains the survivors N times longer."),
    "tune_settings": "Each value of each setting is one variant of the order above.",
    "tune_together": "One variant for each way to take a value of every setting, instead.",
    "tune_best": "Test and time the student of the best variant; it is taught already.",
}
