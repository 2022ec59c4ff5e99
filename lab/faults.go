package lab

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Faults are what goes wrong with a machine. The same seed gives the same choices. The zero value is a machine without faults.
type Faults struct {
	Seed uint64
	// Loss is the share of UDP datagrams (DHCP and TFTP, both directions) that disappear.
	Loss float64
	// BMCBusy is how many chassis commands are answered "node busy" before one is obeyed.
	BMCBusy int
	// BMCHang makes the BMC swallow every packet.
	BMCHang bool
	// DieAt is the agent's step before which the ephemeral system crashes: the machine stays on and is silent.
	DieAt string
	// DieTimes is how many times DieAt strikes; 0 means each time.
	DieTimes int
	// FailAt is the agent's step that fails and is reported as failed.
	FailAt string
	// StepDelay slows every step down.
	StepDelay time.Duration
}

var (
	errDied   = errors.New("the machine hangs")
	errFailed = errors.New("fault: the step fails")
)

// faultState is the machine's faults with what is left of them.
type faultState struct {
	mu   sync.Mutex
	f    Faults
	rng  *rand.Rand
	died int
}

func (s *faultState) set(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.f, s.died = f, 0
	s.rng = rand.New(rand.NewPCG(f.Seed, 0x16907))
}

func (s *faultState) lose() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.f.Loss > 0 && s.rng.Float64() < s.f.Loss
}

func (s *faultState) busy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.f.BMCBusy > 0 {
		s.f.BMCBusy--
		return true
	}
	return false
}

func (s *faultState) hangs() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.f.BMCHang
}

// enter is called before each step of the machine.
func (s *faultState) enter(ctx context.Context, step string) error {
	s.mu.Lock()
	delay := s.f.StepDelay
	var err error
	switch step {
	case s.f.FailAt:
		if step != "" {
			err = errFailed
		}
	case s.f.DieAt:
		if step != "" && (s.f.DieTimes == 0 || s.died < s.f.DieTimes) {
			s.died++
			err = errDied
		}
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return sleep(ctx, delay)
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// lossyConn loses datagrams in both directions as the faults say.
type lossyConn struct {
	*net.UDPConn
	faults *faultState
}

func (c *lossyConn) ReadFromUDP(p []byte) (int, *net.UDPAddr, error) {
	for {
		n, addr, err := c.UDPConn.ReadFromUDP(p)
		if err != nil || !c.faults.lose() {
			return n, addr, err
		}
	}
}

func (c *lossyConn) WriteToUDP(p []byte, addr *net.UDPAddr) (int, error) {
	if c.faults.lose() {
		return len(p), nil
	}
	return c.UDPConn.WriteToUDP(p, addr)
}

// listenUDP opens a socket that is closed when ctx ends, so that no read outlives a power-off.
func listenUDP(ctx context.Context, faults *faultState) (*lossyConn, func(), error) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	return &lossyConn{c, faults}, func() { stop(); c.Close() }, nil
}
