package httpboot

import (
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// forget is how long the kernel keeps a closed connection whose other end no longer answers or takes data.
const forget = 3 * time.Second

// Listener wraps a listener for clients that are firmware. GRUB leaves its last connection with a closed window: the kernel of this host can
// then neither send the end of the connection nor give up, for many minutes, and since GRUB uses the same ports after each start, the
// machine's next boot hangs at that file. A connection that is closed here is forgotten within seconds (TCP_USER_TIMEOUT, RFC 5482,
// applies to a closed window too), well before a machine can start again. Transfers that still run are not touched: a slow disk may
// keep a window closed for as long as it likes.
func Listener(l net.Listener) net.Listener { return listener{l} }

type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if t, ok := c.(*net.TCPConn); ok && err == nil {
		return &conn{TCPConn: t}, nil
	}
	return c, err
}

// conn keeps what net/http looks for in a TCP connection: ReadFrom (sendfile) and CloseWrite.
type conn struct {
	*net.TCPConn
	once sync.Once
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.once.Do(func() {
		raw, err := c.SyscallConn()
		if err != nil {
			return // closed already
		}
		_ = raw.Control(func(fd uintptr) {
			// Without these the close is as good as any other, only slower to be forgotten.
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(forget.Milliseconds()))
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_LINGER2, int(forget.Seconds()))
		})
	})
	return c.TCPConn.Close()
}
