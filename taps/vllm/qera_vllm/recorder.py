"""What runs inside the engine's steps: it copies the wanted rows of every site into blocks, and no
more."""

import ctypes

import torch

MOST_RUNS = 4  # of rows that are copied one by one


class Copy:
    """Rows of the step that go to rows at to `to` of a block: a slice of them, or those that an
    index names."""

    def __init__(self, block, at):
        self.block, self.at, self.to, self.runs, self.spans, self.index = block, at, at, [], [], None

    def add(self, request, start, stop):
        self.spans.append((request, self.to, self.to + stop - start))
        self.to += stop - start
        if self.runs and self.runs[-1][1] == start:
            self.runs[-1][1] = stop
        else:
            self.runs.append([start, stop])

    def settle(self, device):
        self.start, self.stop = self.runs[0]
        if len(self.runs) > 1:
            rows = torch.cat([torch.arange(start, stop) for start, stop in self.runs])
            self.index = rows.to(device)

    def read(self, site, x, row_bytes):
        """Copies rows [rows, in]. In memory that is one call of the C library's: torch's own
        spreads a copy over threads that the model's kernels wait for."""
        if row_bytes and len(self.runs) <= MOST_RUNS:
            to, source = self.block.addresses[site.index] + self.at * row_bytes, x.data_ptr()
            for start, stop in self.runs:
                size = (stop - start) * row_bytes
                ctypes.memmove(to, source + start * row_bytes, size)
                to += size
            return
        to = self.block.tensors[site.index][self.at : self.to]
        if self.index is None:
            to.copy_(x[self.start : self.stop], non_blocking=True)
        elif x.device == to.device:
            torch.index_select(x, 0, self.index, out=to)
        else:
            to.copy_(x.index_select(0, self.index), non_blocking=True)


class Step:
    """One real step of the engine. `rows`: of its tensors, padding included."""

    def __init__(self, number, copies, rows):
        self.number, self.copies, self.rows, self.reads = number, copies, rows, 0


class Recorder:
    """Follows the engine's schedule; `writer` gets full blocks, and requests that have ended."""

    def __init__(self, switch, settings, found, blocks, writer, requests, device="cpu"):
        self.switch, self.blocks, self.writer, self.requests = switch, blocks, writer, requests
        self.sites, self.live, self.device = found.sites, len(found.sites), torch.device(device)
        self.counts, self.rows_left = requests.counts, settings.rows
        self.current, self.output, self.step, self.number, self.handles = None, None, None, 0, []
        self.is_over = False
        switch.at_last(self.end_all)

    def _listen(self, wanted):
        """Hooks are there for steps that are recorded. One that does nothing costs each call of its
        layer some microseconds, together some percent of a step that computes one token."""
        if wanted and not self.handles:
            for site in self.sites:
                if not site.left_out:
                    self.handles.append(site.module.register_forward_pre_hook(self._hook_of(site)))
            if self.is_over:  # the writer's thread ended it meanwhile
                self.end_all()
        elif not wanted and self.handles:
            self._unhook()
            self.handles = []

    def _hook_of(self, site):
        def hook(module, arguments):
            if self.step is not None:
                try:
                    self._read(site, arguments)
                except Exception as error:
                    self.switch.fail(error)

        return hook

    def _unhook(self):
        for handle in list(self.handles):
            handle.remove()  # which may be done twice

    def end_all(self):
        """Nothing is recorded from now on."""
        self.is_over = True
        self.step, self.output, self.current = None, None, None
        self._unhook()
        self.blocks.close()

    # The engine's schedule: scheduled, then begun and ended around the model's pass, then done.

    def scheduled(self, output):
        """A step begins: who has ended, who is new."""
        for request in self.requests.finished(output.finished_req_ids):
            self._end(request)
        self.requests.resumed(output.scheduled_cached_reqs)
        for data in output.scheduled_new_reqs:
            self.requests.new(data)
        self.output = output if output.total_num_scheduled_tokens else None

    def begin(self, order, rows):
        """The model is about to read `rows` rows, those of the requests in `order` and then
        padding."""
        self.step = self._step_of(order, rows)
        self._listen(self.step is not None)

    def _step_of(self, order, rows):
        """What is to be recorded of the step; None where that is nothing."""
        output = self.output
        if output is None or not self.requests.running or self.is_over:
            return None
        tokens = output.num_scheduled_tokens
        total = output.total_num_scheduled_tokens
        if sum(tokens[key] for key in order) != total or rows < total:
            raise RuntimeError(f"{len(order)} requests have other rows than the {total} of {rows} that are scheduled")
        segments = self.requests.segments(order, tokens)
        if segments and not self.writer.is_full():
            copies = self._placed(segments)
            self.number += 1
            return Step(self.number, copies, rows) if copies else None
        if segments:
            self.counts.row("folder full", sum(segment.stop - segment.start for segment in segments))
        return None

    def _placed(self, segments):
        """Where the rows go; those for which there is no room are dropped."""
        copies, copy = [], None
        for segment in segments:
            start = segment.start
            while start < segment.stop:
                if copy is None or copy.to == copy.block.rows:
                    block = self._block() if copy is None else self.blocks.take()
                    if block is None:
                        self.counts.row("memory", segment.stop - start)
                        break
                    copy = Copy(block, block.used)
                    copies.append(copy)
                stop = min(segment.stop, start + copy.block.rows - copy.to)
                copy.add(segment.request, start, stop)
                start = stop
        for copy in copies:
            copy.settle(self.device)
        return copies

    def _block(self):
        if self.current is None:
            self.current = self.blocks.take()
        return self.current

    def _read(self, site, arguments):
        """A site reads its input."""
        step = self.step
        if site.left_out:
            return
        if site.step == step.number:
            self._leave_out(site, "it is called twice in a step")
            return
        x = arguments[0] if arguments else None
        problem = self._problem(site, x, step)
        if problem:
            self._leave_out(site, problem)
            return
        site.step = step.number
        step.reads += 1
        if x.dim() == 3:
            x = x[0]
        plain = x.device.type == "cpu" and x.is_contiguous()
        row_bytes = site.width * x.element_size() if plain else 0
        for copy in step.copies:
            copy.read(site, x, row_bytes)

    def _problem(self, site, x, step):
        if not torch.is_tensor(x):
            return f"its input is a {type(x).__name__}"
        if x.dtype != self.blocks.dtype:
            return f"its input is of type {x.dtype}, not {self.blocks.dtype}"
        if x.shape != (step.rows, site.width) and x.shape != (1, step.rows, site.width):
            return f"its input is {list(x.shape)}, not [{step.rows}, {site.width}]"
        return None

    def _leave_out(self, site, reason):
        site.left_out = True
        self.live -= 1
        self.switch.say(("site", site.key), f"{' and '.join(site.names)}: left out, {reason}")
        if self.step is not None and site.step == self.step.number:
            self.step.reads -= 1
        if not self.live:
            self.switch.off("no linear layer is left to record")

    def end(self):
        """The model has passed: the rows are kept."""
        step, self.step = self.step, None
        if step is None:
            return
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()
        if step.reads != self.live:
            for site in self.sites:
                if site.step != step.number and not site.left_out:
                    self._leave_out(site, "not every step calls it")
        if not self.switch.on:
            return
        for copy in step.copies:
            self._keep(copy)
        if self.rows_left == 0:
            self._stop()

    def _keep(self, copy):
        block = copy.block
        for request, start, stop in copy.spans:
            if self.rows_left is not None:
                stop = min(stop, start + self.rows_left)
                self.rows_left -= stop - start
            if stop > start:
                block.add(request, start, stop)
        block.used = copy.to
        self.current = block
        if block.used == block.rows:
            self._hand_over()

    def _hand_over(self):
        block, self.current = self.current, None
        self.writer.block(block)

    def _end(self, request):
        if self.current is not None and self.current.has(request):
            self._hand_over()
        self.writer.finish(request)

    def flush(self):
        if self.current is not None:
            self._hand_over()

    def _stop(self):
        """QERA_TAP_ROWS are recorded."""
        self.flush()
        for request in self.requests.finished(list(self.requests.running)):
            self.writer.finish(request)
        self.switch.say("rows", "as many rows as QERA_TAP_ROWS asks for are recorded; the tap rests")
        self.end_all()

    def done(self):
        """The engine's step is over, however it ended."""
        step, self.step, self.output = self.step, None, None
        if step is not None:  # the model failed
            for copy in step.copies:
                if copy.block is not self.current:
                    self.blocks.give(copy.block)

    def adapter_changed(self, adapter_id):
        self.requests.adapter_changed(adapter_id)
