package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/bougou/go-ipmi/pkg/bmc"
	"github.com/bougou/go-ipmi/pkg/clock"
	"github.com/bougou/go-ipmi/pkg/hal"
	"github.com/bougou/go-ipmi/pkg/server"
	"github.com/bougou/go-ipmi/pkg/types"
)

// BMCConfig is the machine's management controller.
type BMCConfig struct {
	// Address is where it listens; "" is a free port of 127.0.0.1.
	Address  string
	User     string // "" is "maas"
	Password string // "" is "lab-secret"
}

// Command is one chassis command that the BMC obeyed or refused.
type Command struct {
	Name string
	Busy bool
}

// managementController is an IPMI BMC whose chassis is the machine.
type managementController struct {
	m    *Machine
	conn *net.UDPConn
	bmc  *bmc.BMC

	mu       sync.Mutex
	flags    *types.BootOptionParam_BootFlags
	ack      *types.BootOptionParam_BootInfoAcknowledge
	commands []Command
}

func newBMC(m *Machine, c BMCConfig) (*managementController, error) {
	if c.Address == "" {
		c.Address = "127.0.0.1:0"
	}
	addr, err := net.ResolveUDPAddr("udp4", c.Address)
	if err != nil {
		return nil, fmt.Errorf("address of the BMC: %w", err)
	}
	conn, err := net.ListenUDP("udp4", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for IPMI: %w", err)
	}
	b := &managementController{m: m, conn: conn}
	var guid [16]byte
	copy(guid[:], guidBytes(m.cfg.UUID))
	b.bmc = bmc.New(bmc.DeviceInfo{
		DeviceID: 32, DeviceRevision: 1, FirmwareMajor: 1, IPMIVersion: 0x02, ManufacturerID: 0x157, ProductID: 1, AdditionalDeviceSupport: 0x39,
	}, guid, board{b}, bmc.WithClock(clock.Real), bmc.WithCipherSuites([]types.CipherSuiteID{3, 17}))
	u, err := b.bmc.Users.Add(2, c.User)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("BMC user: %w", err)
	}
	u.SetPassword([]byte(c.Password))
	u.Enabled = true
	u.ChannelAccess[1] = bmc.UserChannelAccess{MaxPrivilege: bmc.PrivilegeLevelAdministrator, Enabled: true}
	return b, nil
}

// run serves IPMI until ctx ends.
func (b *managementController) run(ctx context.Context) error {
	srv := server.NewServer(b.bmc, &bmcTransport{UDPConn: b.conn, faults: &b.m.faults})
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	err := srv.Serve(ctx)
	srv.Close()
	if err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("BMC of %s: %w", b.m.cfg.Name, err)
	}
	return nil
}

// bmcTransport swallows packets while the BMC hangs.
type bmcTransport struct {
	*net.UDPConn
	faults *faultState
}

func (t *bmcTransport) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		n, a, err := t.UDPConn.ReadFrom(p)
		if err != nil || !t.faults.hangs() {
			return n, a, err
		}
	}
}

// board is the hardware that the BMC knows: a chassis and nothing else.
type board struct{ b *managementController }

func (x board) Chassis() hal.ChassisHAL { return x.b }
func (board) Sensors() hal.SensorHAL    { return nil }
func (board) Storage() hal.StorageHAL   { return nil }
func (board) Network() hal.NetworkHAL   { return nil }
func (board) GPIO() hal.GPIOHAL         { return nil }
func (board) I2C() hal.I2CHAL           { return nil }
func (board) Console() hal.ConsoleHAL   { return nil }
func (board) Close() error              { return nil }

// command records a chassis command and answers busy when the faults say so.
func (b *managementController) command(name string) error {
	busy := b.m.faults.busy()
	b.mu.Lock()
	b.commands = append(b.commands, Command{name, busy})
	b.mu.Unlock()
	b.m.step("bmc", name)
	if busy {
		return types.CodeNodeBusy
	}
	return nil
}

// PowerState reports whether the machine is on.
func (b *managementController) PowerState(context.Context) (bool, error) { return b.m.On(), nil }

// SetPower switches the machine on or off.
func (b *managementController) SetPower(_ context.Context, on bool) error {
	name := "power off"
	if on {
		name = "power on"
	}
	if err := b.command(name); err != nil {
		return err
	}
	if on {
		b.m.PowerOn()
	} else {
		b.m.PowerOff()
	}
	return nil
}

// PowerCycle switches the machine off and on.
func (b *managementController) PowerCycle(context.Context) error {
	if err := b.command("power cycle"); err != nil {
		return err
	}
	b.m.PowerOff()
	b.m.PowerOn()
	return nil
}

// ColdReset is a power cycle.
func (b *managementController) ColdReset(ctx context.Context) error {
	if err := b.command("reset"); err != nil {
		return err
	}
	b.m.PowerOff()
	b.m.PowerOn()
	return nil
}

// WarmReset is what the server library calls for a soft shutdown: the operating system is asked to end.
func (b *managementController) WarmReset(context.Context) error {
	if err := b.command("soft off"); err != nil {
		return err
	}
	b.m.PowerOff()
	return nil
}

// Identify does nothing: there is no lamp.
func (b *managementController) Identify(context.Context, uint8) error { return nil }

// IntrusionState is unsupported.
func (b *managementController) IntrusionState(context.Context) (bool, error) {
	return false, hal.ErrNotSupported
}

// SetBootFlags keeps the flags for the next boot.
func (b *managementController) SetBootFlags(_ context.Context, f *types.BootOptionParam_BootFlags) error {
	if f == nil {
		return hal.ErrNotSupported
	}
	c := *f
	b.mu.Lock()
	b.flags = &c
	b.mu.Unlock()
	b.m.step("bmc", "boot device")
	return nil
}

// GetBootFlags returns the flags.
func (b *managementController) GetBootFlags(context.Context) (*types.BootOptionParam_BootFlags, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.flags == nil {
		return &types.BootOptionParam_BootFlags{}, nil
	}
	c := *b.flags
	return &c, nil
}

// SetBootInfoAcknowledge keeps the acknowledgement.
func (b *managementController) SetBootInfoAcknowledge(_ context.Context, a *types.BootOptionParam_BootInfoAcknowledge) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a == nil {
		b.ack = nil
		return nil
	}
	c := *a
	b.ack = &c
	return nil
}

// GetBootInfoAcknowledge returns the acknowledgement.
func (b *managementController) GetBootInfoAcknowledge(context.Context) (*types.BootOptionParam_BootInfoAcknowledge, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ack == nil {
		return &types.BootOptionParam_BootInfoAcknowledge{}, nil
	}
	c := *b.ack
	return &c, nil
}

// bootDevice consumes the boot flags: "pxe", "disk" or "" for the firmware's own order, which is network first.
func (b *managementController) bootDevice() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.flags
	if f == nil || !f.BootFlagsValid {
		return ""
	}
	if !f.Persist {
		b.flags = nil // one boot only
	}
	switch f.BootDeviceSelector {
	case types.BootDeviceSelectorForcePXE:
		return "pxe"
	case types.BootDeviceSelectorForceHardDrive:
		return "disk"
	}
	return ""
}

// Commands returns the chassis commands that the BMC was sent.
func (m *Machine) Commands() []Command {
	m.bmc.mu.Lock()
	defer m.bmc.mu.Unlock()
	return append([]Command(nil), m.bmc.commands...)
}
