package agent

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// StepError says which step failed, at which command, with its last words.
type StepError struct {
	Step    string
	Command string // empty when no program was involved
	Output  []string
	Err     error
}

func (e *StepError) Error() string {
	var b strings.Builder
	if e.Step != "" {
		fmt.Fprintf(&b, "%s: ", e.Step)
	}
	if e.Command != "" {
		fmt.Fprintf(&b, "%s: ", e.Command)
	}
	b.WriteString(e.Err.Error())
	if len(e.Output) > 0 {
		b.WriteString("; last output: ")
		b.WriteString(strings.Join(e.Output, " | "))
	}
	return b.String()
}

func (e *StepError) Unwrap() error { return e.Err }

// inStep wraps an error with the name of its step, once. What was made of a command's error on the way keeps its words.
func inStep(step string, err error) error {
	if err == nil {
		return nil
	}
	if se, ok := err.(*StepError); ok && se.Step == "" {
		se.Step = step
		return se
	}
	var se *StepError
	if errors.As(err, &se) && se.Step != "" {
		return err
	}
	return &StepError{Step: step, Err: err}
}

// keepLines is how many of a command's last lines an error carries.
const keepLines = 12

// searchPath is where programs are, in the light environment, in a full system and inside an installed one.
var searchPath = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// commander runs programs and logs what they say.
type commander struct {
	log func(string)
	env []string // besides the usual
	// fake stands for the programs in tests: it gets the root and the command and answers with its output.
	fake func(root, stdin string, argv []string) (string, error)
}

// with returns a commander whose programs see more environment.
func (c commander) with(env ...string) commander {
	c.env = append(append([]string{}, c.env...), env...)
	return c
}

// output runs a program in the environment's own root and returns what it wrote to its standard output; that is not logged.
func (c commander) output(ctx context.Context, name string, args ...string) (string, error) {
	line := strings.Join(append([]string{name}, args...), " ")
	if c.fake != nil {
		out, err := c.fake("", "", append([]string{name}, args...))
		if err != nil {
			return out, &StepError{Command: line, Err: err}
		}
		return out, nil
	}
	p := find("", name)
	if p == "" {
		return "", &StepError{Command: line, Err: fmt.Errorf("%s is not installed", name)}
	}
	cmd := exec.CommandContext(ctx, p, args...)
	cmd.Dir, cmd.Env = "/", c.environment()
	var out, bad bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &bad
	if err := cmd.Run(); err != nil {
		var tail []string
		for _, l := range strings.Split(bad.String(), "\n") {
			if l = strings.TrimSpace(printable(l)); l != "" {
				tail = append(tail, clip(l, 300))
			}
		}
		return out.String(), &StepError{Command: line, Output: tail[max(0, len(tail)-keepLines):], Err: err}
	}
	return out.String(), nil
}

// environment is what programs see. Without a udev, device mapper, LVM and mdadm make their device nodes themselves.
func (c commander) environment() []string {
	env := []string{"PATH=" + strings.Join(searchPath, ":"), "LC_ALL=C", "HOME=/root", "DEBIAN_FRONTEND=noninteractive"}
	if _, err := os.Stat("/run/udev/control"); err != nil {
		env = append(env, "DM_DISABLE_UDEV=1", "MDADM_NO_UDEV=1")
	}
	return append(env, c.env...)
}

// find returns the path of a program as seen from inside root, "" when there is none.
func find(root, name string) string {
	for _, d := range searchPath {
		p := filepath.Join(d, name)
		if _, err := exec.LookPath(filepath.Join(root, p)); err == nil {
			return p
		}
	}
	return ""
}

// run executes name with args in the environment's own root.
func (c commander) run(ctx context.Context, name string, args ...string) error {
	return c.runIn(ctx, "", nil, name, args...)
}

// runIn executes a program inside root (chroot; "" for none). No shell is involved.
func (c commander) runIn(ctx context.Context, root string, stdin io.Reader, name string, args ...string) error {
	line := strings.Join(append([]string{name}, args...), " ")
	if c.fake != nil {
		var in strings.Builder
		if stdin != nil {
			if _, err := io.Copy(&in, stdin); err != nil {
				return err
			}
		}
		if out, err := c.fake(root, in.String(), append([]string{name}, args...)); err != nil {
			return &StepError{Command: line, Output: strings.Fields(out), Err: err}
		}
		return nil
	}
	path := name
	if !strings.HasPrefix(name, "/") {
		if path = find(root, name); path == "" {
			return &StepError{Command: line, Err: fmt.Errorf("%s is not installed", name)}
		}
	}
	cmd := &exec.Cmd{Path: path, Args: append([]string{path}, args...), Stdin: stdin, Dir: "/",
		Env: c.environment()}
	if root != "" {
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	}
	pr, pw := io.Pipe()
	cmd.Stdout, cmd.Stderr = pw, pw
	if c.log != nil {
		c.log("+ " + line)
	}
	if err := cmd.Start(); err != nil {
		return &StepError{Command: line, Err: err}
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	var tail []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		s := bufio.NewScanner(pr)
		s.Buffer(make([]byte, 64<<10), 1<<20)
		s.Split(scanOutput)
		for s.Scan() {
			l := strings.TrimSpace(printable(s.Text()))
			if l == "" {
				continue
			}
			if c.log != nil {
				c.log("  " + l)
			}
			if tail = append(tail, clip(l, 300)); len(tail) > keepLines {
				tail = tail[1:]
			}
		}
		_, _ = io.Copy(io.Discard, pr)
	}()
	err := cmd.Wait()
	pw.Close()
	<-done
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return &StepError{Command: line, Output: tail, Err: err}
	}
	return nil
}

// scanOutput splits at newlines and at the carriage returns and backspaces that progress bars use.
func scanOutput(data []byte, atEOF bool) (int, []byte, error) {
	for i, b := range data {
		if b == '\n' || b == '\r' || b == '\b' {
			return i + 1, data[:i], nil
		}
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	if len(data) >= 32<<10 {
		return len(data), data, nil
	}
	return 0, nil, nil
}
