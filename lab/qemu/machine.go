package qemu

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	ovmfCode = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	ovmfVars = "/usr/share/OVMF/OVMF_VARS_4M.fd"
)

// Firmware is what a machine has instead of an operating system.
type Firmware string

// The firmwares.
const (
	BIOS     Firmware = "bios"      // SeaBIOS; the network card's ROM is iPXE
	UEFI     Firmware = "uefi"      // OVMF with its own PXE client
	UEFIIPXE Firmware = "uefi-ipxe" // OVMF with the card's iPXE ROM
	UEFIHTTP Firmware = "uefi-http" // OVMF that boots by HTTP
)

// Config describes a machine.
type Config struct {
	Name     string // default: from the MAC
	Firmware Firmware
	MAC      string // default 52:54:00:77:00:NN
	// NICs is how many network cards there are on the bridge; default 1. The machine boots from the first. See NICMAC.
	NICs     int
	MemoryMB int // default 1024
	CPUs     int // default 1
	// Disks are sizes in bytes; default one of 8 GiB. Serials are NAME-disk-1…
	Disks    []int64
	DiskType string // virtio (default), sata, nvme, scsi
	// DiskTypes overrides DiskType disk by disk; empty ones do not.
	DiskTypes []string
	// BMC is the address (port 623) of the machine's management controller on the bridge; the zero value: it has none.
	BMC         netip.Addr
	BMCUser     string // an account besides those that the machine makes itself; default admin
	BMCPassword string // default "password"
	// Kernel, Initrd and Append boot without any network protocol.
	Kernel, Initrd, Append string
	// Product appears in SMBIOS; the vendor is always "Ingot Lab".
	Product string
	Extra   []string // more arguments for QEMU
}

// Machine is one QEMU machine. It is off until PowerOn.
type Machine struct {
	Config
	UUID    string
	net     *Net
	dir     string
	tap     string
	bmc     *controller
	console *Console

	mu     sync.Mutex
	pulled map[int]bool
	cmd    *exec.Cmd
	exited chan struct{}
	closed bool
	starts int
}

// Machine adds a machine to the network.
func (n *Net) Machine(c Config) (*Machine, error) {
	n.mu.Lock()
	n.nextTap++
	id := n.nextTap
	n.mu.Unlock()
	if c.MAC == "" {
		c.MAC = fmt.Sprintf("52:54:00:77:00:%02x", id)
	}
	if c.Name == "" {
		c.Name = fmt.Sprintf("vm%d", id)
	}
	if c.Firmware == "" {
		c.Firmware = BIOS
	}
	if c.MemoryMB == 0 {
		c.MemoryMB = 1024
	}
	if c.CPUs == 0 {
		c.CPUs = 1
	}
	if c.Disks == nil {
		c.Disks = []int64{8 << 30}
	}
	if c.BMCUser == "" {
		c.BMCUser, c.BMCPassword = "admin", firstOf(c.BMCPassword, "password")
	}
	m := &Machine{Config: c, net: n, dir: filepath.Join(n.o.Dir, c.Name), tap: "tap" + strconv.Itoa(id),
		UUID: "77000000-0000-4000-8000-" + strings.ReplaceAll(c.MAC, ":", "")}
	if err := os.MkdirAll(m.dir, 0o755); err != nil {
		return nil, err
	}
	m.console = &Console{path: filepath.Join(m.dir, "console.log")}
	for i, size := range c.Disks {
		if err := makeDisk(m.DiskPath(i), size); err != nil {
			return nil, err
		}
	}
	if c.Firmware != BIOS {
		b, err := os.ReadFile(ovmfVars)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(m.dir, "vars.fd"), b, 0o644); err != nil {
			return nil, err
		}
	}
	for i := range max(c.NICs, 1) {
		if err := n.addTap(m.tapOf(i)); err != nil {
			return nil, err
		}
	}
	if c.BMC.IsValid() {
		if err := n.AddAddr(c.BMC); err != nil {
			return nil, err
		}
		ctl, err := startBMC(m)
		if err != nil {
			return nil, err
		}
		m.bmc = ctl
	}
	n.mu.Lock()
	n.ms = append(n.ms, m)
	n.mu.Unlock()
	return m, nil
}

func firstOf(s ...string) string {
	for _, x := range s {
		if x != "" {
			return x
		}
	}
	return ""
}

// makeDisk makes a sparse raw file: tests read it as it is.
func makeDisk(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Truncate(size)
}

// DiskPath is the raw file of disk i. Read it while the machine is off.
func (m *Machine) DiskPath(i int) string {
	return filepath.Join(m.dir, fmt.Sprintf("disk%d.raw", i))
}

func (m *Machine) diskType(i int) string {
	if i < len(m.DiskTypes) && m.DiskTypes[i] != "" {
		return m.DiskTypes[i]
	}
	return m.DiskType
}

// DiskSerial is what the machine reads as disk i's serial number.
func (m *Machine) DiskSerial(i int) string { return fmt.Sprintf("%s-disk-%d", m.Name, i+1) }

// NICMAC is the address of network card i.
func (m *Machine) NICMAC(i int) string {
	if i == 0 {
		return m.MAC
	}
	return fmt.Sprintf("%s:%02x:%s", m.MAC[:11], i, m.MAC[15:])
}

func (m *Machine) tapOf(i int) string {
	if i == 0 {
		return m.tap
	}
	return fmt.Sprintf("%s-%d", m.tap, i)
}

// Console is the machine's serial console since it was made.
func (m *Machine) Console() *Console { return m.console }

// Starts counts how often the machine was switched on.
func (m *Machine) Starts() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.starts
}

func (m *Machine) args(bootDisk bool) []string {
	machine, accel, cpu := "pc", "tcg,thread=multi,tb-size=256", "qemu64,-svm"
	if m.Firmware != BIOS {
		machine = "q35"
	}
	if KVM() {
		accel, cpu = "kvm", "host"
	}
	p := func(n string) string { return filepath.Join(m.dir, n) }
	a := []string{"-name", m.Name, "-uuid", m.UUID, "-M", machine, "-accel", accel, "-cpu", cpu, "-smp", strconv.Itoa(m.CPUs), "-m", strconv.Itoa(m.MemoryMB),
		"-nodefaults", "-display", "none", "-device", "virtio-rng-pci",
		"-chardev", "file,id=ser0,path=" + m.console.path + ",append=on", "-serial", "chardev:ser0",
		"-qmp", "unix:" + p("qmp") + ",server=on,wait=off",
		"-smbios", "type=1,manufacturer=Ingot Lab,product=" + firstOf(m.Product, "QEMU machine") + ",serial=SN-" + m.Name + ",uuid=" + m.UUID,
		"-netdev", "tap,id=n0,ifname=" + m.tap + ",script=no,downscript=no"}
	nic := "virtio-net-pci,netdev=n0,id=nic0,mac=" + m.MAC
	diskIndex := 2
	if bootDisk {
		diskIndex = 1
		nic += ",bootindex=9"
	} else {
		nic += ",bootindex=1"
	}
	if m.Firmware == UEFI || m.Firmware == UEFIHTTP {
		nic += ",romfile="
	}
	a = append(a, "-device", nic)
	for i := 1; i < m.NICs; i++ {
		a = append(a, "-netdev", fmt.Sprintf("tap,id=n%d,ifname=%s,script=no,downscript=no", i, m.tapOf(i)),
			"-device", fmt.Sprintf("virtio-net-pci,netdev=n%d,id=nic%d,mac=%s,romfile=", i, i, m.NICMAC(i)))
	}
	types := map[string]bool{}
	for i := range m.Disks {
		types[m.diskType(i)] = true
	}
	if types["sata"] && machine == "pc" {
		a = append(a, "-device", "ahci,id=ahci0")
	}
	if types["scsi"] {
		a = append(a, "-device", "virtio-scsi-pci,id=scsi0")
	}
	for i := range m.Disks {
		if m.pulled[i] {
			continue
		}
		d := fmt.Sprintf("d%d", i)
		a = append(a, "-drive", "file="+m.DiskPath(i)+",if=none,id="+d+",format=raw,cache=unsafe,discard=unmap,detect-zeroes=unmap")
		rest := ",drive=" + d + ",serial=" + m.DiskSerial(i) + ",bootindex=" + strconv.Itoa(diskIndex+i)
		switch m.diskType(i) {
		case "sata":
			bus := "ide"
			if machine == "pc" {
				bus = "ahci0"
			}
			a = append(a, "-device", fmt.Sprintf("ide-hd,bus=%s.%d", bus, i)+rest)
		case "nvme":
			a = append(a, "-device", "nvme"+rest)
		case "scsi":
			a = append(a, "-device", "scsi-hd,bus=scsi0.0"+rest)
		default:
			a = append(a, "-device", "virtio-blk-pci"+rest)
		}
	}
	if m.Firmware != BIOS {
		a = append(a, "-drive", "if=pflash,format=raw,unit=0,readonly=on,file="+ovmfCode, "-drive", "if=pflash,format=raw,unit=1,file="+p("vars.fd"),
			// a server that does not answer IPv6 costs a minute each
			"-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n", "-fw_cfg", "name=opt/org.tianocore/IPv6HTTPSupport,string=n")
		if m.Firmware == UEFIHTTP {
			a = append(a, "-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=n")
		}
	}
	if m.bmc != nil {
		a = append(a, "-chardev", "socket,id=ipmi0,path="+p("ipmi")+",reconnect=2", "-device", "ipmi-bmc-extern,id=bmc0,chardev=ipmi0", "-device", "isa-ipmi-kcs,bmc=bmc0")
	}
	if m.Kernel != "" {
		a = append(a, "-kernel", m.Kernel, "-initrd", m.Initrd, "-append", m.Append)
	}
	return append(a, m.Extra...)
}

// PullDisk takes disk i out of the machine, which is off.
func (m *Machine) PullDisk(i int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pulled == nil {
		m.pulled = map[int]bool{}
	}
	m.pulled[i] = true
}

// PowerOnFromDisk starts the machine from its first disk, whatever the network would say.
func (m *Machine) PowerOnFromDisk() error { return m.powerOn(true) }

// PowerOn starts the machine; one that runs already keeps running.
func (m *Machine) PowerOn() error { return m.powerOn(false) }

func (m *Machine) powerOn(bootDisk bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errors.New("the machine is closed")
	}
	if m.running() {
		return nil
	}
	c := exec.Command("qemu-system-x86_64", m.args(bootDisk)...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.OpenFile(filepath.Join(m.dir, "qemu.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	c.Stdout, c.Stderr = log, log
	_ = os.Remove(filepath.Join(m.dir, "qmp"))
	err = startChild(c)
	log.Close()
	if err != nil {
		return err
	}
	_ = unix.Setpriority(unix.PRIO_PROCESS, c.Process.Pid, 5) // the servers that machines wait for go first
	m.cmd, m.exited = c, make(chan struct{})
	m.starts++
	m.net.o.Logf("%s: on (start %d, boot disk first: %v)", m.Name, m.starts, bootDisk)
	go func(done chan struct{}) {
		err := c.Wait()
		m.net.o.Logf("%s: off (%v)", m.Name, err)
		close(done)
	}(m.exited)
	return nil
}

func (m *Machine) running() bool {
	if m.cmd == nil {
		return false
	}
	select {
	case <-m.exited:
		return false
	default:
		return true
	}
}

// PowerState reports whether the machine is on.
func (m *Machine) PowerState() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.running()
}

// PowerOff pulls the plug.
func (m *Machine) PowerOff() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running() {
		_ = m.cmd.Process.Kill()
		<-m.exited
	}
}

// WaitOff waits until the machine has switched itself off.
func (m *Machine) WaitOff(ctx context.Context) error {
	m.mu.Lock()
	on, ch := m.running(), m.exited
	m.mu.Unlock()
	if !on {
		return nil
	}
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s is still on: %w", m.Name, ctx.Err())
	}
}

// Soft presses the power button: the operating system is asked to shut down.
func (m *Machine) Soft() error { return m.qmp("system_powerdown") }

// Reset presses the reset button.
func (m *Machine) Reset() error { return m.qmp("system_reset") }

// Cycle switches the machine off and on.
func (m *Machine) Cycle() error {
	m.PowerOff()
	return m.PowerOn()
}

// qmp sends one command to QEMU's control socket.
func (m *Machine) qmp(command string) error {
	if !m.PowerState() {
		return fmt.Errorf("%s is off", m.Name)
	}
	var c net.Conn
	var err error
	for i := 0; i < 50; i++ { // QEMU makes the socket a moment after it starts
		if c, err = net.Dial("unix", filepath.Join(m.dir, "qmp")); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	d := json.NewDecoder(c)
	var greeting any
	if err := d.Decode(&greeting); err != nil {
		return err
	}
	for _, x := range []string{"qmp_capabilities", command} {
		if _, err := fmt.Fprintf(c, `{"execute": %q}`, x); err != nil {
			return err
		}
		for {
			var r map[string]json.RawMessage
			if err := d.Decode(&r); err != nil {
				return err
			}
			if e, ok := r["error"]; ok {
				return fmt.Errorf("qmp %s: %s", x, e)
			}
			if _, ok := r["return"]; ok {
				break
			}
		}
	}
	return nil
}

func (m *Machine) close() {
	m.PowerOff()
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	if m.bmc != nil {
		m.bmc.close()
	}
	for i := range max(m.NICs, 1) {
		_ = ip("link", "del", m.tapOf(i))
	}
}

// Console reads a serial console from its log.
type Console struct{ path string }

// Bytes is everything written so far.
func (c *Console) Bytes() []byte {
	b, err := os.ReadFile(c.path)
	if err != nil {
		return nil
	}
	return b
}

// Len is how much has been written: a mark for WaitSince.
func (c *Console) Len() int64 {
	fi, err := os.Stat(c.path)
	if err != nil {
		return 0
	}
	return fi.Size()
}

// Wait waits for text that matches re, from the beginning of the log.
func (c *Console) Wait(ctx context.Context, re string) error { return c.WaitSince(ctx, 0, re) }

// WaitSince waits for text that matches re after the mark.
func (c *Console) WaitSince(ctx context.Context, mark int64, re string) error {
	rx, err := regexp.Compile(re)
	if err != nil {
		return err
	}
	t := time.NewTicker(200 * time.Millisecond)
	defer t.Stop()
	for {
		if b := c.Bytes(); int64(len(b)) > mark && rx.Match(b[mark:]) {
			return nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return fmt.Errorf("console never said %q: %w; its end:\n%s", re, ctx.Err(), c.Tail(2000))
		}
	}
}

// Tail is the printable end of the log.
func (c *Console) Tail(n int) string {
	b := c.Bytes()
	if len(b) > n {
		b = b[len(b)-n:]
	}
	b = bytes.ReplaceAll(b, []byte("\r"), nil)
	return string(bytes.Map(func(r rune) rune {
		if r == '\n' || r >= ' ' && r < 0x7f {
			return r
		}
		return -1
	}, b))
}

// CopyTo writes the log to w.
func (c *Console) CopyTo(w io.Writer) error {
	_, err := w.Write(c.Bytes())
	return err
}
