package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// crashFile keeps the worker's last words for the report after its death.
const crashFile = "/run/ingot/crash.log"

// failDelay is how long a failure stays on the console before the machine is switched off.
const failDelay = 10 * time.Second

// Init is what the agent does as process 1 of the light environment: it prepares the system, runs itself once more as the worker,
// reaps what dies, and ends the boot. It does not return. The worker does the work, so that whatever becomes of it, somebody is left
// to report and to switch the machine off.
func Init() {
	for _, m := range []struct{ src, at, fs, opts string }{
		{"proc", "/proc", "proc", ""}, {"sysfs", "/sys", "sysfs", ""}, {"devtmpfs", "/dev", "devtmpfs", "mode=0755"},
		{"tmpfs", "/run", "tmpfs", "mode=0755"}, {"tmpfs", "/tmp", "tmpfs", "mode=1777"},
	} {
		_ = os.MkdirAll(m.at, 0o755)
		if err := unix.Mount(m.src, m.at, m.fs, unix.MS_NOSUID, m.opts); err != nil && err != unix.EBUSY {
			fmt.Printf("ingot-agent: mount %s: %v\r\n", m.at, err)
		}
	}
	_ = os.MkdirAll(filepath.Dir(crashFile), 0o700)
	_ = os.MkdirAll("/dev/pts", 0o755)
	_ = unix.Mount("devpts", "/dev/pts", "devpts", 0, "")
	console, err := os.OpenFile("/dev/console", os.O_RDWR, 0)
	if err != nil {
		console = os.Stdout
	}
	say := func(format string, args ...any) { fmt.Fprintf(console, "ingot-agent: "+format+"\r\n", args...) }
	obeySignals(say)
	then, err := supervise(console)
	if err != nil {
		say("the agent died: %v", err)
		ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
		if rerr := superviseReport(ctx, console); rerr != nil {
			say("its death could not be reported: %v", rerr)
		}
		cancel()
		say("the machine switches off in %s", failDelay)
		time.Sleep(failDelay)
		then = "poweroff"
	}
	unix.Sync()
	switch then {
	case "reboot":
		say("rebooting")
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	case thenSwitchRoot:
		say("starting the system that was unpacked into memory")
		err := switchRoot(memoryRoot, console)
		say("the system in memory could not be started: %v", err)
		time.Sleep(failDelay)
	}
	say("switching off")
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	for {
		time.Sleep(time.Hour) // process 1 must not end
	}
}

// obeySignals does what busybox's reboot, poweroff and halt ask of process 1: a script may reboot the machine and go on after it.
func obeySignals(say func(string, ...any)) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2)
	go func() {
		what := unix.LINUX_REBOOT_CMD_POWER_OFF
		if <-c == syscall.SIGTERM {
			what = unix.LINUX_REBOOT_CMD_RESTART
		}
		say("asked to reboot or switch off")
		unix.Sync()
		_ = unix.Reboot(what)
	}()
}

// start runs this program again with args and waits for it, reaping everybody else's orphans meanwhile.
func start(console *os.File, stderr *os.File, args ...string) error {
	self := "/proc/self/exe"
	if p, err := os.Readlink(self); err == nil {
		self = p
	}
	p, err := os.StartProcess(self, append([]string{"ingot-agent"}, args...), &os.ProcAttr{
		Dir: "/", Env: []string{"PATH=" + strings.Join(searchPath, ":"), "HOME=/root", "TERM=linux", "GOTRACEBACK=single"},
		Files: []*os.File{console, console, stderr}, Sys: &syscall.SysProcAttr{Setsid: true}})
	if err != nil {
		return err
	}
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if pid != p.Pid {
			continue
		}
		if ws.Exited() && ws.ExitStatus() == 0 {
			return nil
		}
		if ws.Signaled() {
			return fmt.Errorf("killed by %s", ws.Signal())
		}
		return fmt.Errorf("exit status %d", ws.ExitStatus())
	}
}

// supervise runs the worker; it leaves what is to happen next in a file.
func supervise(console *os.File) (string, error) {
	f, err := os.Create(crashFile)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if err := start(console, f, "worker"); err != nil {
		if b, rerr := os.ReadFile(crashFile); rerr == nil {
			fmt.Fprintf(console, "%s\r\n", strings.ReplaceAll(clip(string(b), 4000), "\n", "\r\n"))
		}
		return "", err
	}
	b, err := os.ReadFile("/run/ingot/then")
	return string(b), err
}

func superviseReport(ctx context.Context, console *os.File) error {
	done := make(chan error, 1)
	go func() { done <- start(console, console, "report-crash") }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// rescueShell gives the console to busybox, again and again.
func rescueShell(console io.Writer) {
	in, _ := console.(*os.File)
	for {
		if _, err := os.Stat("/bin/busybox"); err != nil {
			time.Sleep(time.Hour)
			continue
		}
		c := exec.Command("/bin/busybox", "sh")
		c.Stdin, c.Stdout, c.Stderr = in, console, console
		c.Env = []string{"PATH=" + strings.Join(searchPath, ":"), "HOME=/", "TERM=linux", "PS1=rescue# "}
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		_ = c.Run()
		time.Sleep(time.Second)
	}
}

// Worker is the second process of the light environment: drivers, network, the task. It writes what is to happen next for process 1.
func Worker(console io.Writer) error {
	rep := func(format string, args ...any) { fmt.Fprintf(console, "ingot-agent: "+format+"\r\n", args...) }
	s := system{"/"}
	cl := ParseCmdline(s.read("proc/cmdline"))
	rep("light environment, kernel %s", s.read("proc/sys/kernel/osrelease"))
	if m, err := openModules("/lib/modules/ingot", rep); err != nil {
		rep("modules: %v", err)
	} else {
		m.coldplug("/sys/devices")
		for _, n := range m.always {
			if n == "efivarfs" && !s.exists("sys/firmware/efi") {
				continue
			}
			m.load(n)
		}
		m.coldplug("/sys/devices")
	}
	if s.exists("sys/firmware/efi") {
		_ = unix.Mount("efivarfs", "/sys/firmware/efi/efivars", "efivarfs", 0, "")
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if cl.ConfigURL == "" {
		return errors.New("the kernel command line has no cloud-config-url")
	}
	if _, err := bringUp(ctx, s, cl.BootIF, rep); err != nil {
		return err
	}
	// the renaming of other interfaces is only for the inventory; failures do not matter
	for _, n := range s.list("sys/class/net") {
		if want := s.PredictableName(n); s.physical(n) && want != "" && want != n && s.read("sys/class/net", n, "operstate") == "down" && !s.exists("sys/class/net", want) {
			_ = rename(n, want)
			_ = setFlags(want, unix.IFF_UP, 0) // link state and speed are only known of interfaces that are up
		}
	}
	out, err := Run(ctx, Config{ConfigURL: cl.ConfigURL, BootIF: cl.BootIF, Console: console, Target: "/run/ingot/target", Light: true})
	if err != nil {
		rep("%s failed: %v", firstOf(string(out.Step), "start"), err)
		if out.Then != "stay" && out.Step != "" { // before a task is known, Run says what is best
			out.Then = "poweroff"
		}
		time.Sleep(failDelay)
	}
	if out.Then == "stay" { // ssh and the lease of the address live in this process
		rep("the machine stays up")
		rescueShell(console)
	}
	return os.WriteFile("/run/ingot/then", []byte(out.Then), 0o600)
}

// WorkerCrash reports the worker's death from what it left on its standard error.
func WorkerCrash() error {
	cl := ParseCmdline(system{"/"}.read("proc/cmdline"))
	b, _ := os.ReadFile(crashFile)
	words := strings.TrimSpace(printable(strings.ReplaceAll(clip(string(b), 1500), "\n", " | ")))
	ctx, cancel := context.WithTimeout(context.Background(), 80*time.Second)
	defer cancel()
	return ReportCrash(ctx, Config{ConfigURL: cl.ConfigURL}, words)
}
