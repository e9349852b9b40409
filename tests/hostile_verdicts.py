"""Programs that want a verdict that they have not earned (see `hostile_programs`)."""

from __future__ import annotations

from hostile_programs import Hostile

VERDICTS: tuple[Hostile, ...] = (
    Hostile("os._exit(0)", "import os\nos._exit(0)", ("crashed",)),
    Hostile("the status of a fork that failed", "import os\nos._exit(71)", ("crashed",)),
    Hostile("sys.exit", "import sys\nsys.exit(0)", says="SystemExit"),
    Hostile("a subclass of SystemExit", "class Done(SystemExit): pass\nraise Done(0)", says="Done"),
    Hostile("KeyboardInterrupt", "raise KeyboardInterrupt", says="KeyboardInterrupt"),
    Hostile("a generator's end", "raise GeneratorExit", says="GeneratorExit"),
    Hostile("exits under another name", "import builtins, sys\nbuiltins.print = sys.exit\nprint(0)", says=""),
    Hostile("exits where lines are traced", """
        import os, sys
        sys.settrace(lambda *_: os._exit(0))
        def f(): pass
        f()
    """),
    Hostile("exits at exit", """
        import atexit, os, threading
        atexit.register(os._exit, 0)
        threading._register_atexit(os._exit, 0)
    """),
    Hostile("exits in a thread", "import os, threading, time\nthreading.Thread(target=os._exit, args=(0,)).start()\n"
            "time.sleep(9)", ("crashed",)),
    Hostile("exits when an error is shown", """
        import os, sys, traceback
        sys.excepthook = traceback.print_exception = lambda *_, **__: os._exit(0)
    """, ("crashed", "failed"), says="ended with status 0"),
    Hostile("exits when an object is freed", """
        import os
        class A:
            def __del__(self): os._exit(0)
        a = A()
        del a
    """, ("crashed",)),
    Hostile("a pickle that exits", "import pickle\npickle.loads(b'cos\\n_exit\\n(I0\\ntR.')", ("crashed",)),
    Hostile("a pickle that starts a shell", """
        import pickle
        assert pickle.loads(b"cposix\\nsystem\\n(Vtrue\\ntR.") != 0
    """),
    Hostile("code that is compiled at run time", "exec(compile('import os; os._exit(0)', 'x', 'exec'))", ("crashed",)),
    Hostile("prints what a verdict looks like", """
        import os
        for told in ("passed", '{"reason": "passed", "clean": true}', "\\0\\0\\0\\x02{}"): print(told, flush=True)
        os._exit(0)
    """, ("crashed",)),
    Hostile("prints a report of its own", "print('1 passed in 0.1s')", says="1 passed in 0.1s"),
    Hostile("writes a verdict to every descriptor", """
        import os
        for file in range(4096):
            for told in (b"passed", b"\\0\\0\\0\\x14" + b'{"reason": "passed"}', b"x" * 16):
                try: os.write(file, told)
                except OSError: pass
        os._exit(0)
    """, ("crashed",)),
    Hostile("says back what descriptors say, hashed or not", """
        import hashlib, os
        for file in range(3, 4096):
            try:
                os.set_blocking(file, False)
                said = os.read(file, 100)
                os.write(file, said)
                os.write(file, hashlib.sha256(said).digest())
            except OSError: pass
        os._exit(0)
    """, ("crashed",)),
    Hostile("looks for the verdict in frames and in the garbage collector", """
        import gc, hashlib, os, sys, types
        frame, found = sys._getframe(), []
        while frame:
            found += [frame, *frame.f_locals.values(), *frame.f_globals.values()]
            frame = frame.f_back
        found += gc.get_objects()
        for thing in list(found): found += gc.get_referents(thing)
        sockets = [thing.fileno() for thing in found if type(thing).__name__ == "socket"]
        secrets = {thing for thing in found if type(thing) is bytes and len(thing) == 16}
        for file in {*sockets, *range(3, 1024)}:
            for secret in secrets:
                try: os.write(file, secret)
                except OSError: pass
        os._exit(0)
    """, ("crashed", "timeout"), says=""),
    Hostile("takes the runner's function away", """
        import sys
        frame = sys._getframe()
        while frame:
            for name in list(frame.f_globals):
                if callable(frame.f_globals[name]) and frame.f_back: frame.f_globals[name] = lambda *_, **__: None
            frame = frame.f_back
    """, ("failed", "crashed"), says=""),
    Hostile("jumps in the runner's frame", """
        import sys
        def jump(frame, event, argument):
            for line in range(frame.f_lineno - 12, frame.f_lineno + 12):
                try: frame.f_lineno = line
                except ValueError: pass
            return jump
        frame = sys._getframe().f_back
        while frame:
            frame.f_trace = jump
            frame = frame.f_back
        sys.settrace(jump)
    """, ("failed", "crashed", "timeout"), says=""),
    Hostile("replaces what a verdict is told with", """
        import builtins, hashlib, os, socket, sys, traceback
        class Equal:
            def __eq__(self, other): return True
        hashlib.sha256 = lambda *_: Equal()
        socket.socket.send = socket.socket.recv = lambda *_: b"passed"
        os.write = os._exit = sys.exit = traceback.print_exception = lambda *_, **__: 0
        builtins.isinstance = builtins.exec = builtins.compile = lambda *_: True
        builtins.BaseException = builtins.AssertionError = builtins.MemoryError = ZeroDivisionError
    """, ("failed", "memory"), says=""),
    Hostile("replaces modules", """
        import sys, types
        for name in list(sys.modules): sys.modules[name] = types.ModuleType(name)
        sys.modules.clear()
    """),
    Hostile("replaces its output", """
        import os, sys
        class Output:
            def write(self, text): return len(text)
            def flush(self): os._exit(0)
        sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = Output()
    """, ("crashed",)),
    Hostile("closes every descriptor", "import os\nos.closerange(0, 4096)", ("crashed", "failed"), says=""),
    Hostile("replaces every descriptor", """
        import os, socket
        ours, theirs = socket.socketpair()
        for file in range(3, 1024):
            if file not in (ours.fileno(), theirs.fileno()):
                try: os.dup2(ours.fileno(), file)
                except OSError: pass
    """, ("crashed", "failed"), says=""),
    Hostile("holds the verdict's descriptor", """
        import os, threading, time
        def spoil():
            while True:
                for file in range(3, 1024):
                    try: os.write(file, b"passed")
                    except OSError: pass
        threading.Thread(target=spoil, daemon=True).start()
        time.sleep(0.1)
    """, ("crashed", "failed"), says=""),
    Hostile("reads its input", "import sys\nassert sys.stdin.read() == ''\nassert sys.stdin.readline() == ''"),
    Hostile("dumps tracebacks for ever", """
        import faulthandler, time
        faulthandler.dump_traceback_later(0.001, repeat=True)
        faulthandler.enable()
        time.sleep(0.05)
    """, ("failed", "output"), says=""),
    Hostile("aborts", "import os\nos.abort()", ("crashed",), says="SIGABRT"),
    Hostile("ends itself", "import signal\nsignal.raise_signal(signal.SIGTERM)", ("crashed",), says="SIGTERM"),
    Hostile("kills itself", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", ("crashed",), says="SIGKILL"),
    Hostile("stops itself", "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", ("timeout",)),
    Hostile("is no text", "x = '\0'", says="Error"),
    Hostile("half of a character", "x = '\ud800'", says="Error"),
    Hostile("no syntax", "def f(:", says="SyntaxError"),
    Hostile("names that look alike", "раss = 1\nassert раss == 1\n\u202e = 2", says="SyntaxError"),
    Hostile("a string that is not closed", "'''", says="SyntaxError"),
    Hostile("a line that goes on", "if True: pass\nelse: \\", says="Error"),
    Hostile("an encoding of its own", "# -*- coding: utf-7 -*-\n+AHAAYQBzAHM-", says="SyntaxError"),
)  # fmt: skip
