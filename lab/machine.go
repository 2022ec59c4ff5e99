// Package lab owns virtual machines for development and tests. A Machine here is true to the protocols and to nothing else: it asks
// DHCP, TFTP and HTTP servers for real, obeys the boot files it gets, plays the ephemeral environment by the metadata protocol,
// "installs" onto a sparse disk in memory and boots from what that disk holds; its BMC speaks IPMI on a UDP port. It executes no
// code, needs no privilege, and hundreds run in one process. It knows nothing of the server's insides: it is a client, as a
// machine in a rack is. (The QEMU machines in lab/qemu run real firmware and real kernels.)
package lab

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Firmware is how a machine's firmware boots from the network.
type Firmware string

// The kinds of firmware.
const (
	BIOSiPXE Firmware = "bios-ipxe" // an iPXE ROM: DHCP with user class iPXE, scripts over HTTP
	BIOSPXE  Firmware = "bios-pxe"  // a PXE ROM: lpxelinux.0 over TFTP
	UEFITFTP Firmware = "uefi-tftp" // native UEFI PXE: shim and GRUB over TFTP
	UEFIHTTP Firmware = "uefi-http" // UEFI HTTP boot
)

// Firmwares are all kinds, in the order in which a site hands them out.
var Firmwares = []Firmware{BIOSiPXE, UEFITFTP, BIOSPXE, UEFIHTTP}

// Mode is "bios" or "uefi".
func (f Firmware) Mode() string {
	if strings.HasPrefix(string(f), "uefi") {
		return "uefi"
	}
	return "bios"
}

// Config describes a machine. Name, MAC and DHCP are needed; the rest has defaults.
type Config struct {
	Name     string
	MAC      string
	UUID     string // SMBIOS; "" is derived from the MAC
	Firmware Firmware
	Arch     string // amd64
	CPUs     int
	Memory   int // MiB
	Disks    []DiskConfig
	BMC      BMCConfig
	// NoBMC hides the BMC from the inventory: the machine enlists without power parameters.
	NoBMC bool

	// DHCP is where the rack listens for DHCP. There is no broadcast domain in one process: requests go there, answers come back.
	DHCP netip.AddrPort
	// Relay is put into giaddr, as a relay agent of the machine's subnet does; the zero value sends none.
	Relay netip.Addr
	// TFTP is the rack's TFTP listener: a DHCP answer carries an address only, and unprivileged racks are not on port 69.
	TFTP netip.AddrPort

	// ScriptExit is the exit status of commissioning and test scripts by name; absent is 0.
	ScriptExit map[string]int
	Faults     Faults
	// Retry are the pauses between tries of a call to the metadata service; nil is MAAS's 1, 1, 2, 4, 8, 16, 32 seconds.
	Retry []time.Duration
	// Before is called before each of Steps and may block: a test stops the world there.
	Before func(step string)
	// OnStep is called for each step, in order; it must not block.
	OnStep func(Step)
	// OnChange is called after the power or a disk changed, for whoever keeps the machine's state.
	OnChange func(*Machine)
	Log      *slog.Logger
}

// Step is one thing that a machine did.
type Step struct {
	At   time.Time
	Kind string // power, dhcp, tftp, http, boot, agent, os, bmc, fault
	Text string
}

// Fetch is one file or answer that the machine read.
type Fetch struct {
	URL    string
	Status int // HTTP; 0 for TFTP that worked
	Bytes  int64
	SHA256 string
}

// System is the operating system that runs on a machine from its disk.
type System struct {
	Hostname   string
	ImagePath  string
	ImageSHA   string
	Address    string // of the boot interface
	UserData   []byte
	PublicKeys []string
	InstanceID string
	FirstBoot  bool // this boot was the first of the installation and asked the metadata service
}

// The states of a machine: what it is doing.
const (
	StateOff       = "off"
	StateFirmware  = "firmware"
	StateEphemeral = "ephemeral" // an ephemeral environment runs
	StateInstalled = "installed" // the system on its disk runs
	StateHung      = "hung"      // on, and silent until somebody takes the power away
	StateNothing   = "nothing"   // neither network nor disk gave it something to boot; it tries again
)

// Machine is one virtual machine.
type Machine struct {
	cfg    Config
	hw     net.HardwareAddr
	log    *slog.Logger
	disks  []*Disk
	bmc    *managementController
	faults faultState
	http   *http.Client

	power sync.Mutex // one power operation at a time
	mu    sync.Mutex
	base  context.Context
	life  *life
	on    bool
	state string
	sys   *System
	lease *lease
	trace []Step
	reads []Fetch
	boots int
	// inMemory is the system that the agent has unpacked into memory: only the boot's own goroutine looks.
	inMemory *installedSystem
	lives    sync.WaitGroup
	wake     chan struct{}

	scriptEnds outcomes // how scripts end
}

type life struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// New makes a machine that is off and opens its BMC's socket. Close it, or Run it, which closes it at the end.
func New(c Config) (*Machine, error) {
	hw, err := net.ParseMAC(c.MAC)
	if err != nil || len(hw) != 6 {
		return nil, fmt.Errorf("MAC address %q of machine %s is not one", c.MAC, c.Name)
	}
	c.MAC = hw.String()
	if c.Name == "" {
		return nil, errors.New("a machine needs a name")
	}
	if !c.DHCP.IsValid() {
		return nil, fmt.Errorf("machine %s needs the address of a DHCP server", c.Name)
	}
	if c.UUID == "" {
		c.UUID = fmt.Sprintf("1a6b0000-0000-4000-8000-%s", strings.ReplaceAll(c.MAC, ":", ""))
	}
	if c.Firmware == "" {
		c.Firmware = BIOSiPXE
	}
	if c.Arch == "" {
		c.Arch = "amd64"
	}
	if c.CPUs == 0 {
		c.CPUs = 4
	}
	if c.Memory == 0 {
		c.Memory = 8192
	}
	if len(c.Disks) == 0 {
		c.Disks = []DiskConfig{{Name: "vda", Serial: "lab-" + strings.ReplaceAll(c.MAC, ":", ""), Model: "Ingot Lab Disk", Size: 20 << 30}}
	}
	if c.BMC.User == "" {
		c.BMC.User = "maas"
	}
	if c.BMC.Password == "" {
		c.BMC.Password = "lab-secret"
	}
	if c.Retry == nil {
		for _, s := range []int{1, 1, 2, 4, 8, 16, 32} {
			c.Retry = append(c.Retry, time.Duration(s)*time.Second)
		}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	m := &Machine{cfg: c, hw: hw, log: c.Log.With("lab_machine", c.Name), state: StateOff, wake: make(chan struct{})}
	m.faults.set(c.Faults)
	for _, d := range c.Disks {
		m.disks = append(m.disks, NewDisk(d))
	}
	m.http = &http.Client{
		Transport: &http.Transport{DialContext: m.dial, MaxIdleConnsPerHost: 2, IdleConnTimeout: 5 * time.Second, DisableCompression: true},
		// Firmware and boot loaders follow no redirect; a boot that needs one must fail here too.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if m.bmc, err = newBMC(m, c.BMC); err != nil {
		return nil, fmt.Errorf("machine %s: %w", c.Name, err)
	}
	return m, nil
}

// Run serves the BMC and lives while the power is on, until ctx ends.
func (m *Machine) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m.power.Lock()
	m.mu.Lock()
	m.base = ctx
	if m.on {
		m.startLocked()
	}
	m.mu.Unlock()
	m.power.Unlock()
	err := m.bmc.run(ctx)
	cancel()
	m.lives.Wait()
	m.http.CloseIdleConnections()
	return err
}

// dial connects to the rack. The lab's subnet exists on no interface: with a rack on loopback, its address in that subnet is there.
func (m *Machine) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if rack := m.cfg.DHCP.Addr(); rack.IsLoopback() {
		if host, port, err := net.SplitHostPort(addr); err == nil {
			if a, err := netip.ParseAddr(host); err == nil && !a.IsLoopback() {
				addr = net.JoinHostPort(rack.String(), port)
			}
		}
	}
	d := net.Dialer{Timeout: 5 * time.Second}
	return d.DialContext(ctx, network, addr)
}

// Close frees a machine that was never run.
func (m *Machine) Close() error { return m.bmc.conn.Close() }

// Config returns the machine's configuration with its defaults.
func (m *Machine) Config() Config { return m.cfg }

// BMCAddress is where the BMC listens.
func (m *Machine) BMCAddress() string { return m.bmc.conn.LocalAddr().String() }

// SetFaults changes what goes wrong from now on.
func (m *Machine) SetFaults(f Faults) { m.faults.set(f) }

// On reports whether the power is on.
func (m *Machine) On() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.on
}

// State is what the machine is doing.
func (m *Machine) State() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state
}

// System is the operating system that runs from the machine's disk, nil when none does.
func (m *Machine) System() *System {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sys == nil {
		return nil
	}
	s := *m.sys
	return &s
}

// Disk returns a disk by name, nil when there is none.
func (m *Machine) Disk(name string) *Disk {
	for _, d := range m.disks {
		if d.Name == name {
			return d
		}
	}
	return nil
}

// Trace returns what the machine did.
func (m *Machine) Trace() []Step {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Step(nil), m.trace...)
}

// Fetches returns what the machine read from the rack.
func (m *Machine) Fetches() []Fetch {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Fetch(nil), m.reads...)
}

// Boots counts how often the machine started its firmware.
func (m *Machine) Boots() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.boots
}

// PowerOn presses the button. A machine that is on stays as it is.
func (m *Machine) PowerOn() {
	m.power.Lock()
	defer m.power.Unlock()
	m.mu.Lock()
	if m.on {
		m.mu.Unlock()
		return
	}
	m.on = true
	if m.base != nil {
		m.startLocked()
	}
	m.mu.Unlock()
	m.step("power", "on")
	m.changed()
}

// PowerOff takes the power away. It returns when the machine has stopped doing anything.
func (m *Machine) PowerOff() {
	m.power.Lock()
	defer m.power.Unlock()
	m.mu.Lock()
	was := m.on
	m.on = false
	l := m.life
	m.life = nil
	m.mu.Unlock()
	if l != nil {
		l.cancel()
		<-l.done
	}
	if !was {
		return
	}
	m.mu.Lock()
	m.state, m.sys, m.lease = StateOff, nil, nil
	m.mu.Unlock()
	m.step("power", "off")
	m.changed()
}

func (m *Machine) startLocked() {
	ctx, cancel := context.WithCancel(m.base)
	l := &life{cancel: cancel, done: make(chan struct{})}
	m.life = l
	m.lives.Add(1)
	go func() {
		defer m.lives.Done()
		defer close(l.done)
		defer cancel()
		m.live(ctx, l)
	}()
}

// action is how a boot ends.
type action int

const (
	actReboot action = iota
	actOff
	actStay
)

// live boots until the machine is off.
func (m *Machine) live(ctx context.Context, l *life) {
	for ctx.Err() == nil {
		act, err := m.boot(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			m.step("fault", err.Error())
			m.log.Info("lab machine stopped", "err", err)
		}
		m.http.CloseIdleConnections()
		switch act {
		case actReboot:
			m.step("power", "reboot")
			// A machine that reboots for ever must not burn the processor.
			if sleep(ctx, 10*time.Millisecond) != nil {
				return
			}
		case actOff:
			m.mu.Lock()
			mine := m.life == l && m.on
			if mine {
				m.on, m.life = false, nil
				m.state, m.sys, m.lease = StateOff, nil, nil
			}
			m.mu.Unlock()
			if mine {
				m.step("power", "off")
				m.changed()
			}
			return
		case actStay:
			<-ctx.Done()
			return
		}
	}
}

// boot is one run from power-on self test to the end of what was booted.
func (m *Machine) boot(ctx context.Context) (action, error) {
	m.mu.Lock()
	m.boots++
	m.sys, m.lease = nil, nil
	m.mu.Unlock()
	m.set(StateFirmware)
	if err := m.enter(ctx, "firmware"); err != nil {
		return m.hang(err)
	}
	if m.bmc.bootDevice() != "disk" {
		t, err := m.netboot(ctx)
		if ctx.Err() != nil {
			return actOff, ctx.Err()
		}
		switch {
		case errors.Is(err, errDied):
			return m.hang(err)
		case err != nil:
			m.step("boot", "network boot failed: "+err.Error())
		case t.kind == targetKernel:
			return m.runKernel(ctx, t)
		case t.kind == targetPowerOff:
			m.step("boot", "the boot file says power off")
			return actOff, nil
		case t.kind == targetReboot:
			return actReboot, nil
		case t.kind == targetHang:
			return m.hang(errors.New(t.why))
		case t.kind == targetLocal:
			return m.bootDisk(ctx, t.disk)
		}
	}
	return m.bootDisk(ctx, -1)
}

func (m *Machine) hang(err error) (action, error) {
	m.set(StateHung)
	return actStay, err
}

func (m *Machine) enter(ctx context.Context, step string) error {
	if m.cfg.Before != nil {
		m.cfg.Before(step)
	}
	err := m.faults.enter(ctx, step)
	if errors.Is(err, errDied) || errors.Is(err, errFailed) {
		m.step("fault", step+": "+err.Error())
	}
	return err
}

func (m *Machine) set(state string) {
	m.mu.Lock()
	m.state = state
	m.mu.Unlock()
	m.step("state", state)
}

// traceLimit keeps a machine that reboots for ever from filling the memory.
const traceLimit = 2000

func (m *Machine) step(kind, text string) {
	s := Step{time.Now(), kind, text}
	m.mu.Lock()
	if len(m.trace) >= traceLimit {
		m.trace = append(m.trace[:0], m.trace[traceLimit/2:]...)
	}
	m.trace = append(m.trace, s)
	close(m.wake)
	m.wake = make(chan struct{})
	m.mu.Unlock()
	m.log.Debug("lab step", "kind", kind, "text", text)
	if m.cfg.OnStep != nil {
		m.cfg.OnStep(s)
	}
}

func (m *Machine) read(f Fetch) {
	m.mu.Lock()
	if len(m.reads) >= traceLimit {
		m.reads = append(m.reads[:0], m.reads[traceLimit/2:]...)
	}
	m.reads = append(m.reads, f)
	m.mu.Unlock()
}

func (m *Machine) changed() {
	if m.cfg.OnChange != nil {
		m.cfg.OnChange(m)
	}
}

// Wait blocks until ok is true of the machine, looking again after each of its steps.
func (m *Machine) Wait(ctx context.Context, ok func(*Machine) bool) error {
	for {
		m.mu.Lock()
		wake := m.wake
		m.mu.Unlock()
		if ok(m) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("machine %s is %s: %w", m.cfg.Name, m.State(), ctx.Err())
		case <-wake:
		}
	}
}

func nonce() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
