"""vLLM's model runners: after they have loaded the model, their steps are followed."""

import functools

RUNNERS = {  # module -> class; a GPU with Triton takes the last
    "vllm.v1.worker.gpu_model_runner": "GPUModelRunner",
    "vllm.v1.worker.cpu_model_runner": "CPUModelRunner",
    "vllm.v1.worker.gpu.model_runner": "GPUModelRunner",
}


def after_load(kind, then):
    """Has `then(runner)` called when a runner of this class has loaded its model. It must not
    raise."""
    load = kind.__dict__.get("load_model")
    if load is None:  # inherited from one that has been seen to
        return

    @functools.wraps(load)
    def load_model(self, *arguments, **options):
        loaded = load(self, *arguments, **options)
        then(self)
        return loaded

    kind.load_model = load_model


def name_of(mode):
    return getattr(mode, "name", str(mode))


def obstacle(config):
    """Why a server with this configuration is not recorded; None if it can be."""
    compilation, parallel = config.compilation_config, config.parallel_config
    graphs = name_of(compilation.cudagraph_mode)
    if name_of(compilation.mode) != "NONE" or graphs not in ("NONE", "None"):
        return "compiled models and graphs bypass it; start the server with --enforce-eager"
    if config.speculative_config is not None:
        return "with speculative decoding nobody knows which rows will count"
    if parallel.pipeline_parallel_size > 1:
        return "a pipeline's stage has a part of the layers only"
    if getattr(parallel, "prefill_context_parallel_size", 1) > 1:
        return "context parallelism spreads the rows of a request"
    if getattr(parallel, "use_ubatching", False):
        return "two halves of a step run at once (ubatching)"
    if getattr(config.cache_config, "kv_sharing_fast_prefill", False):
        return "not every layer reads every row (kv_sharing_fast_prefill)"
    return None


def follow(runner, recorder, switch):
    """Has the recorder follow a runner; says whether it knows how."""
    if hasattr(runner, "_model_forward") and hasattr(runner, "input_batch"):
        follow_first(runner, recorder, switch)
    elif hasattr(runner, "prepare_inputs") and hasattr(runner, "execute_model"):
        follow_second(runner, recorder, switch)
    else:
        return False
    return True


def follow_first(runner, recorder, switch):
    """The runner of CPUs and of GPUs without Triton: rows lie as its `input_batch` has the
    requests."""
    forward = runner._model_forward

    def begin(options):
        tokens = options.get("input_ids")
        tokens = options.get("inputs_embeds") if tokens is None else tokens
        if recorder.output is not None and tokens is not None:
            recorder.begin(list(runner.input_batch.req_ids), tokens.shape[0])

    @functools.wraps(forward)
    def _model_forward(*arguments, **options):
        if recorder.output is None:
            return forward(*arguments, **options)
        names = ("input_ids", "positions", "intermediate_tensors", "inputs_embeds")
        switch.guarded(begin, dict(zip(names, arguments)) | options)
        passed = forward(*arguments, **options)
        switch.guarded(recorder.end)
        return passed

    runner._model_forward = _model_forward
    follow_steps(runner, recorder, switch)


def follow_second(runner, recorder, switch):
    """The runner of GPUs with Triton: rows lie as the batch has the requests that `prepare_inputs`
    makes."""
    prepare = runner.prepare_inputs

    @functools.wraps(prepare)
    def prepare_inputs(*arguments, **options):
        batch = prepare(*arguments, **options)
        if recorder.output is not None:
            switch.guarded(lambda: recorder.begin(list(batch.req_ids), batch.num_tokens_after_padding))
        return batch

    runner.prepare_inputs = prepare_inputs
    follow_steps(runner, recorder, switch, lambda: recorder.end())


def follow_steps(runner, recorder, switch, at_end=None):
    execute = runner.execute_model

    @functools.wraps(execute)
    def execute_model(scheduler_output, *arguments, **options):
        # Steps of the warm-up are none: the first runner has another function for them, the second
        # an option.
        if not switch.on or options.get("dummy_run") or len(arguments) > 1 and arguments[1]:
            return execute(scheduler_output, *arguments, **options)
        switch.guarded(recorder.scheduled, scheduler_output)
        try:
            passed = execute(scheduler_output, *arguments, **options)
            if at_end is not None:
                switch.guarded(at_end)
            return passed
        finally:
            switch.guarded(recorder.done)

    runner.execute_model = execute_model
