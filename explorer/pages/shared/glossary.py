"""What each term on the pages means, in one place. Widgets show it as help."""

TERMS = {
    "teacher": "The model you start from. It is measured and never changed; students imitate it.",
    "student": "A smaller model, usually cut from the teacher and trained to imitate it.",
    "layers": (
        "How many of the teacher's layers the student keeps. With fewer layers it is faster and "
        "cheaper, and less capable."
    ),
    "layer_choice": (
        "How the layers to keep are chosen. By importance: those that change the hidden state "
        "most on a sample of the corpus. Evenly: spaced out over the depth. Greedily: removes, "
        "one at a time, the layer whose loss raises the KL to the teacher least. Applies to Fewer "
        "layers and Both."
    ),
    "kind": (
        "Fewer layers gives the fastest student of its size. Narrower keeps all layers and cuts "
        "the hidden size and MLP channels. Both splits the cut evenly between the two. Existing "
        "model starts from a smaller model with the same tokenizer. From scratch trains the "
        "teacher's architecture from random weights, as a baseline: it shows what the cut is worth."
    ),
    "target": (
        "The student's number of parameters. The nearest possible size is used, within about 1 %. "
        "Choose none to measure only the teacher."
    ),
    "checkpoint": (
        "Smaller models that share the teacher's tokenizer. They are trained as they are; nothing "
        "is cut."
    ),
    "start_from": (
        "Removing more than half of the parameters works better in two steps: train a larger "
        "student first, then cut the next one from it. The teacher stays the same."
    ),
    "retention": (
        "Share of the teacher's capability that the student keeps, corrected for guessing: "
        "(student − chance) / (teacher − chance), averaged over tasks. The bar is a 95 % interval, "
        "bootstrapped over documents that both models answered."
    ),
    "raw_ratio": (
        "Student's score divided by the teacher's, without correction for guessing. Published "
        "claims use it; it flatters small models."
    ),
    "pick": (
        "The limits that a model must meet. Among the models that meet all of them, the objective "
        "below chooses one. Points that do not meet them are pale; the pick has a thick ring."
    ),
    "keep": (
        "The recommended model is the cheapest for this traffic that keeps at least this share of "
        "the teacher's capability. If none does, it is the one that loses least."
    ),
    "sure": (
        "How sure to be that the model keeps at least the share above: the share of paired "
        "bootstrap draws, over documents, in which it does."
    ),
    "objective": (
        "What decides among the models that meet every limit. The most capable: of those that "
        "cannot be told apart from the best, the cheapest."
    ),
    "pick_runtime": "What must run the model, such as llama.cpp for GGUF files.",
    "pick_format": "The number format of the weights; torch is a model that was not converted.",
    "pick_device": "Where it was timed; without a choice, the device with most of the timings.",
    "weights": "Size of the weights, in MB of 1,000,000 bytes.",
    "throughput": "Output tokens per second over the whole answer, first token included.",
    "peak_memory": "Highest memory of the process while it answers, in MB of 1,000,000 bytes.",
    "control_arm": (
        "Students trained on the same text without the teacher. They show what the teacher adds, "
        "and are not offered as a pick."
    ),
    "times": (
        "Times the teacher: each value as a multiple of the teacher's as it is, in torch; times "
        "are ratios measured in turns, so the machine's pace cancels. Absolute: milliseconds, "
        "dollars, bytes. Hovering shows the values."
    ),
    "overlay_published": (
        "Students that others published, as hollow diamonds: what each keeps of the larger model "
        "in its own table. Never on the frontier and never picked."
    ),
    "overlay_estimated": (
        "What these models would need at most on another device, as dotted circles: the roofline, "
        "one request at a time, reaching all of the published arithmetic and bandwidth."
    ),
    "measure_it": (
        "Fills in the Run page: the larger model as the teacher, this student as it is. Nothing "
        "starts before you press Start."
    ),
    "scale": "Automatic is logarithmic where the values span more than a factor of ten.",
    "energy": "Joules per output token, where the device counts its energy.",
    "against": (
        "What the heading and the evidence compare times and costs with. The teacher in the same "
        "runtime and number format shows what distilling adds; the teacher as it is shows all "
        "gains together, those of the runtime included. Ratios of times were measured in turns."
    ),
    "chance": "The score of a model that only guesses.",
    "ttft": "Time to first token: from the request to the first token of the answer.",
    "tpot": (
        "Time per output token after the first: (latency − time to first token) / "
        "(output tokens − 1). The median of all timed answers."
    ),
    "latency": "From the request to the last token of the answer.",
    "usd_per_hour": (
        "Cost per hour of serving the teacher's current load with this model: the device's hourly "
        "price times the share of the device that the load needs."
    ),
    "usd_per_mtok": (
        "US dollars per million output tokens at the stated utilisation, time to first token "
        "included: the device's hourly price / (output tokens per second while answering × "
        "utilisation × 3,600) × 1,000,000. Valid for the prompt and answer lengths at which the "
        "run was timed."
    ),
    "output_tokens_per_usd": (
        "Output tokens for one US dollar at the stated utilisation: a million over $/1M output."
    ),
    "utilisation": (
        "Share of the paid hours in which the device serves requests: 50 % unless you change it. "
        "Halving the utilisation doubles the cost per token."
    ),
    "price": (
        "What this device costs per hour. Prices come from dated lists or from you; they are never "
        "guessed."
    ),
    "hidden_runs": (
        "Hidden runs are left out of charts and tables. They are not deleted, and students of a "
        "hidden teacher are still compared with it."
    ),
    "task": "A task of lm-evaluation-harness. Choose one to see capability on it alone.",
    "device": "The machine or accelerator that timed the run. Compare times within one device.",
    "machine_busy": (
        "Other processes used the machine while this run was timed: more than a fifth of its "
        "processor time, or the same GPU. Its times are shown in grey and are left out of every "
        "frontier, finding, estimate and cost. Its scores still count. Time it again on an idle "
        "machine; training and evaluation are not repeated."
    ),
    "distilled": "Whether the student was trained after the cut, or left as it was.",
    "corpus": (
        "The text to train on. The starter corpus ships with Distill Explorer; a file is .txt, "
        ".jsonl with a text field, or .parquet with a text column."
    ),
    "method": (
        "The teacher's distributions give the probability of every next token: the richest signal. "
        "Cached computes them once for all students; live computes them at every step. Text "
        "generated by the teacher also works for a student with another tokenizer. The control arm "
        "trains on the text alone."
    ),
    "loss": (
        "How the student's distribution is compared with the teacher's. Forward KL covers "
        "everything the teacher finds likely; reverse KL avoids what it finds unlikely; the others "
        "lie in between."
    ),
    "beta": "0 is forward KL, 1 is reverse KL.",
    "control": (
        "Trains each student a second time on the same text and budget, without the teacher. Only "
        "this comparison shows whether distillation helped. Doubles the training time."
    ),
    "on_policy": (
        "Share of the steps that train on text sampled from the student and scored by the teacher. "
        "Slower; the student learns from its own mistakes."
    ),
    "hidden": "Weight of a loss on each layer's hidden states. 0 turns it off.",
    "max_tokens": "Training budget per student. A corpus that is shorter is repeated.",
    "tasks": (
        "Tasks or groups of lm-evaluation-harness. starter is the suite that ships with Distill "
        "Explorer and runs offline."
    ),
    "output_type": (
        "How a task is answered. Choices: the most likely of several. Continuation: whether the "
        "correct text is the most likely of all. Written: the model writes a text, which is "
        "checked. Perplexity: how well it predicts a text."
    ),
    "task_kind": "A group or tag stands for several tasks; a run that names it evaluates them all.",
    "own_task": (
        "Stored in the results folder, so that every machine working on that folder can use it. "
        "Nothing in the file is executed."
    ),
    "own_question": "The column that holds the question.",
    "own_choices": "One column with lists of choices, or several columns with one choice each.",
    "own_answer": (
        "The correct choice: its text, its letter, or its number, in one way throughout the file. "
        "For a generated answer: the expected text; case and surrounding spaces are ignored."
    ),
    "own_answer_as": (
        "How answers name a choice. Asked only if the file can be read in several ways that give "
        "different choices, such as 1, 2 and 3 for four choices."
    ),
    "replace": (
        "Adds a new version of the task. Runs evaluated on an earlier version keep their scores."
    ),
    "data_here": (
        "The documents are on this machine, so the task runs offline. Otherwise the first run "
        "downloads them."
    ),
    "include_path": (
        "A folder on this machine with your own tasks in lm-evaluation-harness's YAML format. "
        "Choose a configured folder or type a path. Python code in it runs only where the "
        "configuration allows it."
    ),
    "task_folder": (
        "A folder with more tasks, from task_folders in this server's configuration file. "
        "explorer doctor prints that file's location."
    ),
    "limit": (
        "Documents per task: a seeded, stratified sample, the same for every model. More documents "
        "take longer and reveal smaller differences. Leave it empty to use all."
    ),
    "detectable": (
        "The smallest difference from the teacher, in points of score, that this many documents "
        "reveal four times out of five (paired test, 5 % level)."
    ),
    "gguf": (
        "Also converts the teacher and every student to GGUF, then evaluates and times them in "
        "llama.cpp on the processor (choose device cpu). Shows whether to quantise the teacher or "
        "to distil it. Needs the extra edge."
    ),
    "torch_bits": (
        "Also quantises the linear layers of the teacher and every student in torch, weights only, "
        "then evaluates and times them. 8 bits works everywhere, 4 bits needs an NVIDIA GPU. Needs "
        "the extra quant."
    ),
    "teacher_bits": (
        "Quantises the teacher while it produces training targets, to save memory; the targets "
        "change slightly. Students are still cut from the full-precision teacher and compared with "
        "it. Needs the extra quant; 4 bits needs an NVIDIA GPU."
    ),
    "workload": (
        "Prompt and answer lengths of a typical request, or your own. Compare times only at the "
        "same lengths."
    ),
    "runtime": (
        "How the model runs while it is timed: in this process by transformers, as it is or "
        "compiled with a static cache, which is meant for GPUs; or in a real server that the run "
        "starts and stops. GGUF files run in llama.cpp or its server; endpoints run elsewhere."
    ),
    "server_arguments": (
        "Arguments of the server's command, such as --max-model-len 4096. Those that can read "
        "files or run code need a line in your configuration; explorer doctor prints its location."
    ),
    "levels": (
        "Numbers of concurrent requests to measure: batches on this device, clients at an "
        "endpoint. The sweep ends at the first level that brings no more tokens per second. Leave "
        "it empty to skip the load test."
    ),
    "repeats": "Timed answers of each model; student and teacher take turns. All are kept.",
    "warmup": "Answers before timing starts; they are not counted.",
    "prompt_tokens": "Prompt length for timing.",
    "output_tokens": "Answer length for timing; every answer has exactly this length.",
    "batch_size": "Sequences answered together.",
    "kd_weight": (
        "Share of the distillation loss. The rest is cross-entropy on the text: 1 uses only the "
        "teacher's distributions, 0 only the text."
    ),
    "precision": (
        "Number format of matrix products in training; weights stay float32. auto means float32 "
        "on CPUs, and bfloat16 on accelerators that compute in it. CPUs with bfloat16 instructions "
        "train much faster with it."
    ),
    "vocab_sample": (
        "Trains on the teacher's top tokens plus this many randomly sampled others instead of the "
        "whole vocabulary. Faster for large vocabularies, at hardly any loss. Leave it empty to "
        "train on all. Requires cached distributions."
    ),
    "train_layers": (
        "Layers before the first cut still compute what the teacher computes. The second choice "
        "freezes them where the student keeps at least half of the teacher's layers: faster, with "
        "less memory, and almost as close to the teacher. Smaller students train all layers."
    ),
    "speedups": (
        "Read ahead loads the text and the cached targets of the next pass while the device "
        "computes this one. Compile runs the student's layers compiled if the first passes show "
        "that this is faster. Neither has been run on a GPU yet."
    ),
    "temperature": "Softens both models' distributions in the loss; 1 leaves them unchanged.",
    "learning_rate": "Peak learning rate of the optimiser.",
    "name": "Prefix of each run's name: lowercase letters, digits, dots, dashes, underscores.",
    "run_device": (
        "auto takes the accelerator with the most free memory, otherwise the CPU. Or type an "
        "accelerator as torch names it: cuda, cuda:1, mps, xpu."
    ),
    "num_devices": "GPUs (or CPU processes) that train and evaluate one run. One of them is timed.",
    "verdict": (
        "better or worse if the paired test, adjusted for the number of tasks (Holm), gives p "
        "below 0.05: a full dot. Otherwise inconclusive, a hollow dot: more documents may show a "
        "difference."
    ),
    "own_runs": (
        "Your own students against size: what they keep of their teacher, with the 95 % interval. "
        "They were measured on your tasks, the published ones on others."
    ),
    "listed": (
        "Study: all runs of the chosen runs' studies. Tick a row to choose it; sort by a heading. "
        "What is chosen is in bold where it is the best of its column."
    ),
    "api_test": (
        "Evaluates tasks at the endpoint through lm-eval's API models. Each answer is saved as it "
        "arrives, and its tokens are counted."
    ),
    "api_at_once": "Concurrent requests. Lower it if the server answers 429.",
    "api_usd": (
        "Refuses to start if the tasks may cost more than this at the known price: all prompts, "
        "plus answers at their maximum length."
    ),
    "api_cost": (
        "Builds every prompt and counts its tokens, as explorer run --dry-run does, without "
        "sending any request. The range goes from the prompts alone to answers at their maximum "
        "length, at the known price."
    ),
    "api_key": (
        "Name of the environment variable that holds the key on the machine that runs the job. "
        "Only the variable that the host may have: explorer keys allow HOST VARIABLE."
    ),
    "api_tokenizer": (
        "The model's tokenizer: a hub id, a folder, or starter. Needed for tasks that score given "
        "answers; without it only tasks with generated answers can be evaluated."
    ),
    "import_name": (
        "Prefix of the new run's id: lowercase letters, digits, dots, dashes and underscores. The "
        "rest is a hash of the files, so importing them twice creates one run."
    ),
    "import_device": (
        "What served the model that was timed, as your prices name it, such as NVIDIA H200. Only "
        "for timings whose file does not say it."
    ),
    "import_only": (
        "A run is one evaluation: one model, one set of settings, one date. These files hold "
        "several; choose the one that this run is."
    ),
    "reference": (
        "The run to compare with, on the same documents. Runs measured differently (other shots, "
        "another task version) are refused; hover to see why."
    ),
    "outcome": (
        "Lost: the reference is right and the run is wrong. Gained: the other way round. Choose "
        "none to see all documents."
    ),
    "yaml": "The same runs as a file: `explorer sweep FILE` does what the button does.",
    "kl": (
        "How far the student's next-token distributions are from the teacher's on held-out text, "
        "in nats per token. 0 means identical."
    ),
    "seed": "Random seed: the same seed gives the same run.",
    "published_axis": (
        "Size: billions of parameters, where published. API price: what an API charges per "
        "million output tokens, dated. $/hour: estimated rent of the cheapest devices that hold "
        "the weights and eight requests."
    ),
    "published_retention": (
        "Raw: student's score / larger model's score, averaged over benchmarks, as claims state "
        "it. Corrected: chance is subtracted from both scores first, over the benchmarks whose "
        "chance level is known."
    ),
    "bits": (
        "Bits per weight. Fewer bits need less memory and cost some capability, which no published "
        "score here accounts for."
    ),
    "relation": (
        "Distilled: the publisher says so. Smaller sibling: a smaller model by the same maker, "
        "with no statement on how it was trained. Not distilled: the publisher says it was not."
    ),
    "traffic": "Requests per minute at the peak. The fleet is sized for it.",
    "input_tokens": (
        "Prompt length. Time to first token is scaled in proportion from the measured prompt, so "
        "stay close to that length."
    ),
    "answer_tokens": "Answer length.",
    "limit_ttft": "Upper limit on the median time to first token. Empty means no limit.",
    "limit_tpot": "Upper limit on the median time per output token. Empty means no limit.",
    "price_set": (
        "Your prices: those you chose or typed. Cheapest and dearest listed: the ends of the dated "
        "price book for the device."
    ),
    "api": (
        "An API to compare with; every price is dated. A name that is not listed, such as "
        "anthropic/claude-sonnet-4-5, is looked up in the package genai-prices. Choose the first "
        "entry to type your own prices."
    ),
    "api_break_even": (
        "API break-even: the share of a device's throughput above which the device is cheaper than "
        "the API. Above 100 % the API is cheaper at any traffic."
    ),
    "planned_utilisation": (
        "Share of a device's measured throughput to plan with, and of the paid hours in which it "
        "serves requests. The rest is headroom for bursts and idle hours. Halving the utilisation "
        "doubles the cost per token."
    ),
    "split": (
        "Prefill and decode split the cost of a request of the lengths above, at the same "
        "utilisation: prefill per million input tokens, decode per million output tokens after "
        "the first. Blended is the cost of the whole request per million input and output tokens."
    ),
    "concurrency": "Requests held in memory and answered at once.",
    "efficiency": (
        "Share of the device's published peak that a program reaches. 100 % is a ceiling that no "
        "program reaches; explorer fit --run takes the share from a measured run."
    ),
    "skew": (
        "Share of one model mixed into the other before comparison, so that no token can cost "
        "more than log(1 / skew). 0 is plain KL."
    ),
    "tune": (
        "A tournament is a search by successive halving: every variant trains briefly, the better "
        "ones train longer, and the lowest KL to the teacher on held-out text wins. Trainings run "
        "in parallel where the queue has room."
    ),
    "tune_run": "The student to improve; its own settings take part as one variant.",
    "tune_rounds": "Number of rounds. The last one trains on the full budget.",
    "tune_keep": "Keeps 1 in N variants each round and trains the survivors N times longer.",
    "tune_settings": "Each value of each setting is one variant of the run above.",
    "tune_together": "Makes one variant for each combination of values.",
    "tune_best": "Evaluates and times the best variant's student, which is already trained.",
}
