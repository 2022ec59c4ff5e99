package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/bougou/go-ipmi/pkg/bmc"
	"github.com/bougou/go-ipmi/pkg/clock"
	"github.com/bougou/go-ipmi/pkg/hal"
	"github.com/bougou/go-ipmi/pkg/hal/mock"
	"github.com/bougou/go-ipmi/pkg/server"
	"github.com/bougou/go-ipmi/pkg/transport/udp"
	"github.com/bougou/go-ipmi/pkg/types"
	"github.com/bougou/go-ipmi/pkg/vmproto"
)

// controller is a machine's BMC: over the LAN on port 623 of its own address, and in band on a socket that QEMU connects to. It
// lives as long as the machine does, whether that is on or off; users made in band are there over the LAN.
type controller struct {
	mock.Chassis // identify, intrusion, boot info acknowledge
	m            *Machine
	lan          *server.Server
	inband       net.Listener
	stop         context.CancelFunc
	done         sync.WaitGroup

	mu    sync.Mutex
	flags *types.BootOptionParam_BootFlags
	log   []string
}

func startBMC(m *Machine) (*controller, error) {
	c := &controller{m: m}
	var guid [16]byte
	copy(guid[:], m.UUID)
	b := bmc.New(bmc.DeviceInfo{DeviceID: 32, DeviceRevision: 1, FirmwareMajor: 1, IPMIVersion: 0x02, ManufacturerID: 0x157, ProductID: 1, AdditionalDeviceSupport: 0x39},
		guid, board{mock.New(), c}, bmc.WithClock(clock.Real), bmc.WithCipherSuites([]types.CipherSuiteID{3, 17}))
	u, err := b.Users.Add(2, m.BMCUser)
	if err != nil {
		return nil, err
	}
	u.SetPassword([]byte(m.BMCPassword))
	u.Enabled = true
	u.ChannelAccess[1] = bmc.UserChannelAccess{MaxPrivilege: bmc.PrivilegeLevelAdministrator, Enabled: true}
	conn, err := udp.Listen(netip.AddrPortFrom(m.BMC, 623).String())
	if err != nil {
		return nil, fmt.Errorf("BMC of %s: %w", m.Name, err)
	}
	sock := filepath.Join(m.dir, "ipmi")
	_ = os.Remove(sock)
	if c.inband, err = net.Listen("unix", sock); err != nil {
		conn.Close()
		return nil, fmt.Errorf("BMC of %s: %w", m.Name, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.stop = cancel
	c.lan = server.NewServer(b, conn)
	vm := vmproto.NewVMServer(b)
	c.done.Add(2)
	go func() {
		defer c.done.Done()
		if err := c.lan.Serve(ctx); err != nil && ctx.Err() == nil {
			m.net.o.Logf("%s: BMC: %v", m.Name, err)
		}
	}()
	go func() {
		defer c.done.Done()
		if err := vm.Serve(ctx, c.inband); err != nil && ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
			m.net.o.Logf("%s: BMC in band: %v", m.Name, err)
		}
	}()
	return c, nil
}

func (c *controller) close() {
	c.stop()
	c.lan.Close()
	c.inband.Close()
	c.done.Wait()
}

// BMCLog lists the commands that the machine's BMC obeyed.
func (m *Machine) BMCLog() []string {
	if m.bmc == nil {
		return nil
	}
	m.bmc.mu.Lock()
	defer m.bmc.mu.Unlock()
	return append([]string(nil), m.bmc.log...)
}

func (c *controller) note(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	c.mu.Lock()
	c.log = append(c.log, s)
	c.mu.Unlock()
	c.m.net.o.Logf("%s: BMC: %s", c.m.Name, s)
}

// nextBoot consumes the boot flags: true means the disk comes first.
func (c *controller) nextBoot() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.flags
	if f == nil || !f.BootFlagsValid {
		return false
	}
	if !f.Persist {
		c.flags = nil
	}
	return f.BootDeviceSelector == types.BootDeviceSelectorForceHardDrive
}

// PowerState implements hal.ChassisHAL.
func (c *controller) PowerState(context.Context) (bool, error) { return c.m.PowerState(), nil }

// SetPower implements hal.ChassisHAL.
func (c *controller) SetPower(_ context.Context, on bool) error {
	c.note("power on=%v", on)
	if !on {
		c.m.PowerOff()
		return nil
	}
	if c.m.PowerState() {
		return nil
	}
	return c.m.powerOn(c.nextBoot())
}

// PowerCycle implements hal.ChassisHAL.
func (c *controller) PowerCycle(context.Context) error {
	c.note("power cycle")
	c.m.PowerOff()
	return c.m.powerOn(c.nextBoot())
}

// ColdReset implements hal.ChassisHAL.
func (c *controller) ColdReset(context.Context) error {
	c.note("reset")
	c.m.PowerOff()
	return c.m.powerOn(c.nextBoot())
}

// WarmReset is what go-ipmi's server calls for a soft shutdown.
func (c *controller) WarmReset(context.Context) error {
	c.note("soft off")
	return c.m.Soft()
}

// SetBootFlags implements hal.ChassisHAL.
func (c *controller) SetBootFlags(_ context.Context, f *types.BootOptionParam_BootFlags) error {
	v := *f
	c.note("boot device %v valid=%v persistent=%v", v.BootDeviceSelector, v.BootFlagsValid, v.Persist)
	c.mu.Lock()
	c.flags = &v
	c.mu.Unlock()
	return nil
}

// GetBootFlags implements hal.ChassisHAL.
func (c *controller) GetBootFlags(context.Context) (*types.BootOptionParam_BootFlags, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flags == nil {
		return &types.BootOptionParam_BootFlags{}, nil
	}
	v := *c.flags
	return &v, nil
}

// board is the hardware around the controller.
type board struct {
	*mock.HAL
	c *controller
}

// Chassis implements hal.HAL.
func (b board) Chassis() hal.ChassisHAL { return b.c }

// Network implements hal.HAL: the address that the machine reads in band is the one that answers on the LAN.
func (b board) Network() hal.NetworkHAL { return lanConfig{b.c.m} }

type lanConfig struct{ m *Machine }

// GetConfig implements hal.NetworkHAL.
func (l lanConfig) GetConfig(context.Context) (*hal.IPConfig, error) {
	c := &hal.IPConfig{IP: l.m.BMC.As4(), Mask: [4]byte(net.CIDRMask(l.m.net.o.Addr.Bits(), 32)), Gateway: l.m.net.Addr().As4()}
	mac, err := net.ParseMAC(strings.Replace(l.m.MAC, "52:54:00", "52:54:0b", 1))
	if err == nil {
		copy(c.MAC[:], mac)
	}
	return c, nil
}

// SetConfig implements hal.NetworkHAL; the address is fixed.
func (lanConfig) SetConfig(context.Context, *hal.IPConfig) error { return hal.ErrNotSupported }
