package agent

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// The light environment has no OpenSSH. For rescue mode, and for a commissioning that stays up, the agent serves SSH itself: the keys of
// the machine's user open a root shell with a terminal, or run a command. There are no passwords, no forwarding and no other users: whatever
// name is given, it is root.

const (
	sshPort        = 22
	sshHandshake   = 30 * time.Second
	sshConnections = 16
	sshSessions    = 10 // of one connection
)

// sshServer serves shells.
type sshServer struct {
	config *ssh.ServerConfig
	logf   func(string, ...any)
	shell  []string // the program and its arguments; with a command, -c and the command follow
	slots  chan struct{}
	wg     sync.WaitGroup
}

// parseKeys reads authorized keys, one a line. Keys with options are left out: an option restricts what its key may do (from, command), and
// this server knows no restrictions.
func parseKeys(b []byte, logf func(string, ...any)) (keys []ssh.PublicKey) {
	for len(bytes.TrimSpace(b)) > 0 {
		k, comment, options, rest, err := ssh.ParseAuthorizedKey(b)
		if err != nil {
			return keys
		}
		b = rest
		if len(options) > 0 {
			logf("the ssh key %q has options (%s) and is not accepted here", clip(printable(comment), 100), clip(printable(strings.Join(options, ",")), 200))
			continue
		}
		keys = append(keys, k)
	}
	return keys
}

// newSSHServer makes a server with a new host key. It returns the key's fingerprint.
func newSSHServer(keys []ssh.PublicKey, logf func(string, ...any)) (*sshServer, string, error) {
	if len(keys) == 0 {
		return nil, "", errors.New("the machine's user has no ssh keys: nobody could log in; add a key and enter rescue mode again")
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, "", err
	}
	host, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, "", err
	}
	known := map[string]bool{}
	for _, k := range keys {
		known[string(k.Marshal())] = true
	}
	s := &sshServer{logf: logf, slots: make(chan struct{}, sshConnections), shell: []string{"/bin/sh"}}
	if find("/", "bash") != "" {
		s.shell = []string{find("/", "bash")}
	}
	s.config = &ssh.ServerConfig{MaxAuthTries: 6, ServerVersion: "SSH-2.0-ingot",
		PublicKeyCallback: func(c ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
			if !known[string(k.Marshal())] {
				return nil, errors.New("unknown key")
			}
			return &ssh.Permissions{Extensions: map[string]string{"key": ssh.FingerprintSHA256(k)}}, nil
		}}
	s.config.AddHostKey(host)
	return s, ssh.FingerprintSHA256(host.PublicKey()), nil
}

// serve accepts connections until ctx ends.
func (s *sshServer) serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer s.wg.Wait()
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			var ne net.Error
			if errors.As(err, &ne) && !errors.Is(err, net.ErrClosed) { // out of descriptors, a connection that is gone already
				time.Sleep(100 * time.Millisecond)
				continue
			}
			return err
		}
		select {
		case s.slots <- struct{}{}:
		default:
			c.Close()
			continue
		}
		s.wg.Add(1)
		go func() {
			defer s.wg.Done()
			defer func() { <-s.slots }()
			defer c.Close()
			defer func() {
				if p := recover(); p != nil { // one connection must not end rescue mode
					s.logf("ssh: %v", p)
				}
			}()
			s.connection(ctx, c)
		}()
	}
}

func (s *sshServer) connection(ctx context.Context, c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(sshHandshake))
	conn, channels, requests, err := ssh.NewServerConn(c, s.config)
	if err != nil {
		return // scanners are not worth a line
	}
	defer conn.Close()
	_ = c.SetDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	s.logf("ssh: %s from %s with key %s", clip(printable(conn.User()), 40), conn.RemoteAddr(), conn.Permissions.Extensions["key"])
	go ssh.DiscardRequests(requests)
	open := make(chan struct{}, sshSessions)
	var wg sync.WaitGroup
	defer wg.Wait()
	for ch := range channels {
		if ch.ChannelType() != "session" {
			_ = ch.Reject(ssh.UnknownChannelType, "only sessions")
			continue
		}
		select {
		case open <- struct{}{}:
		default:
			_ = ch.Reject(ssh.ResourceShortage, "too many sessions")
			continue
		}
		sc, reqs, err := ch.Accept()
		if err != nil {
			<-open
			continue
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer func() { <-open }()
			defer func() {
				if p := recover(); p != nil {
					s.logf("ssh: %v", p)
				}
			}()
			(&sshSession{server: s, ch: sc, env: []string{"PATH=" + strings.Join(searchPath, ":"), "HOME=/root", "USER=root", "LOGNAME=root", "SHELL=" + s.shell[0]}}).run(reqs)
		}()
	}
}

// sshSession is one shell or command.
type sshSession struct {
	server *sshServer
	ch     ssh.Channel
	env    []string
	term   *os.File // our end of the terminal
	tty    *os.File // its end
	cmd    *exec.Cmd
}

func (x *sshSession) run(reqs <-chan *ssh.Request) {
	ended := make(chan struct{})
	started := false
	defer func() {
		if x.cmd != nil && x.cmd.Process != nil {
			_ = syscall.Kill(-x.cmd.Process.Pid, syscall.SIGHUP)
		}
		if started {
			select {
			case <-ended:
			case <-time.After(2 * time.Second):
				_ = syscall.Kill(-x.cmd.Process.Pid, syscall.SIGKILL)
				<-ended
			}
		}
		for _, f := range []*os.File{x.term, x.tty} {
			if f != nil {
				f.Close()
			}
		}
		x.ch.Close()
	}()
	for {
		select {
		case <-ended:
			return
		case r, ok := <-reqs:
			if !ok {
				return
			}
			ok = false
			switch r.Type {
			case "env":
				var kv struct{ Name, Value string }
				if ssh.Unmarshal(r.Payload, &kv) == nil && (kv.Name == "LANG" || strings.HasPrefix(kv.Name, "LC_")) && len(kv.Value) < 100 && len(x.env) < 40 && !strings.ContainsAny(kv.Name+kv.Value, "\x00=") {
					x.env, ok = append(x.env, kv.Name+"="+kv.Value), true
				}
			case "pty-req":
				ok = !started && x.pty(r.Payload) == nil
			case "window-change":
				var w struct{ Columns, Rows, Width, Height uint32 }
				if x.term != nil && ssh.Unmarshal(r.Payload, &w) == nil {
					setWindow(x.term, w.Columns, w.Rows)
					ok = true
				}
			case "signal":
				var sig struct{ Name string }
				if started && ssh.Unmarshal(r.Payload, &sig) == nil {
					if n := unix.SignalNum("SIG" + sig.Name); n != 0 {
						ok = syscall.Kill(-x.cmd.Process.Pid, n) == nil
					}
				}
			case "shell", "exec":
				var c struct{ Command string }
				if started || r.Type == "exec" && (ssh.Unmarshal(r.Payload, &c) != nil || strings.ContainsRune(c.Command, 0)) {
					break
				}
				args := append([]string{}, x.server.shell...)
				if r.Type == "exec" {
					args = append(args, "-c", c.Command)
				}
				if err := x.start(args, ended); err != nil {
					x.server.logf("ssh: %v", err)
					break
				}
				started, ok = true, true
			}
			if r.WantReply {
				_ = r.Reply(ok, nil)
			}
		}
	}
}

// pty makes a terminal.
func (x *sshSession) pty(payload []byte) error {
	var q struct {
		Term                         string
		Columns, Rows, Width, Height uint32
		Modes                        string
	}
	if err := ssh.Unmarshal(payload, &q); err != nil || x.term != nil {
		return errors.New("bad request")
	}
	m, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	n, err := unix.IoctlGetInt(int(m.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(m.Fd()), unix.TIOCSPTLCK, 0)
	}
	var t *os.File
	if err == nil {
		t, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		m.Close()
		return err
	}
	x.term, x.tty = m, t
	setWindow(m, q.Columns, q.Rows)
	name := strings.Map(func(r rune) rune {
		if r == '-' || r == '.' || r == '+' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return -1
	}, clip(q.Term, 40))
	x.env = append(x.env, "TERM="+firstOf(name, "vt100"))
	return nil
}

func setWindow(f *os.File, columns, rows uint32) {
	_ = unix.IoctlSetWinsize(int(f.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(min(rows, 1000)), Col: uint16(min(columns, 2000))})
}

// start runs the session's program; ended is closed when its end has been told to the client.
func (x *sshSession) start(args []string, ended chan<- struct{}) error {
	c := &exec.Cmd{Path: args[0], Args: args, Dir: "/", Env: x.env}
	if _, err := os.Stat("/root"); err == nil {
		c.Dir = "/root"
	}
	c.WaitDelay = time.Second // what it left running may keep the pipes open
	if x.term != nil {
		c.Args[0] = "-" + args[0][strings.LastIndex(args[0], "/")+1:]
		if len(args) > 1 {
			c.Args[0] = args[0]
		}
		c.Stdin, c.Stdout, c.Stderr = x.tty, x.tty, x.tty
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		if err := c.Start(); err != nil {
			return err
		}
		x.cmd = c
		x.tty.Close()
		x.tty = nil
		go func() { _, _ = io.Copy(x.term, x.ch) }()
		shown := make(chan struct{})
		go func() { defer close(shown); _, _ = io.Copy(x.ch, x.term) }() // ends with EIO when the last program has closed the terminal
		go func() {
			err := c.Wait()
			select {
			case <-shown:
			case <-time.After(time.Second):
			}
			x.tell(err)
			close(ended)
		}()
		return nil
	}
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	c.Stdout, c.Stderr = x.ch, x.ch.Stderr()
	in, err := c.StdinPipe() // not Stdin: Wait would wait for the client to close its side
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	x.cmd = c
	go func() { _, _ = io.Copy(in, x.ch); in.Close() }()
	go func() {
		err := c.Wait()
		x.tell(err)
		close(ended)
	}()
	return nil
}

// tell reports how the program ended.
func (x *sshSession) tell(err error) {
	var status uint32
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			sig := strings.TrimPrefix(unix.SignalName(ws.Signal()), "SIG")
			_, _ = x.ch.SendRequest("exit-signal", false, ssh.Marshal(struct {
				Name    string
				Core    bool
				Message string
				Lang    string
			}{sig, false, "", ""}))
			_ = x.ch.CloseWrite()
			return
		}
		status = uint32(exit.ExitCode())
	} else if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		status = 255
	}
	_ = x.ch.CloseWrite()
	_, _ = x.ch.SendRequest("exit-status", false, binary.BigEndian.AppendUint32(nil, status))
}

// PublicKeys fetches the ssh keys of the machine's user, in the form of an authorized_keys file; none is no error.
func (m *Metadata) PublicKeys(ctx context.Context) ([]byte, error) {
	b, err := m.Client.do(ctx, request{method: "GET", url: m.Base + "2012-03-01/meta-data/public-keys", creds: &m.Creds})
	var he *HTTPError
	if errors.As(err, &he) && he.Status == http.StatusNotFound {
		return nil, nil
	}
	return b, err
}

// serveSSH opens the machine to its user for as long as ctx lasts.
func (a *agent) serveSSH(ctx context.Context) error {
	b, err := a.md.PublicKeys(ctx)
	if err != nil {
		return fmt.Errorf("fetch ssh keys: %w", err)
	}
	s, fingerprint, err := newSSHServer(parseKeys(b, a.rep.Logf), a.rep.Logf)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", ":"+strconv.Itoa(sshPort))
	if err != nil {
		return err
	}
	_ = os.MkdirAll("/root", 0o700)
	go func() {
		if err := s.serve(ctx, l); err != nil && ctx.Err() == nil {
			a.rep.Logf("ssh: %v", err)
		}
	}()
	a.rep.Logf("ssh is open on port %d for root, host key %s", sshPort, fingerprint)
	return nil
}
