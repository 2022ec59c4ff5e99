package agent

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// physical reports whether a network interface is hardware.
func (s system) physical(n string) bool {
	return n != "lo" && s.exists("sys/class/net", n, "device") && s.read("sys/class/net", n, "type") == "1"
}

// MACs lists the hardware addresses of physical interfaces, the one that booted first. The address that OpenBMC gives to its host
// interface is never sent.
func (s system) MACs(bootif string) []string {
	var out []string
	for _, n := range s.list("sys/class/net") {
		mac := strings.ToLower(s.read("sys/class/net", n, "address"))
		if !s.physical(n) || len(mac) != 17 || mac == "02:00:00:00:00:02" || mac == "00:00:00:00:00:00" {
			continue
		}
		if mac == bootif {
			out = append([]string{mac}, out...)
		} else {
			out = append(out, mac)
		}
	}
	return out
}

// cards lists physical interfaces, each as a card of one port.
func (s system) cards() obj {
	var out list
	for _, n := range s.list("sys/class/net") {
		if !s.physical(n) {
			continue
		}
		d := "sys/class/net/" + n
		real, _ := filepath.EvalSymlinks(s.path(d, "device"))
		vendor, product := hexID(s.read(d, "device/vendor")), hexID(s.read(d, "device/device"))
		drv := s.driver(d, "device")
		pci := lastPCI(real)
		if pci != "" && strings.HasPrefix(filepath.Base(real), "virtio") { // the PCI function is above the virtio device
			vendor, product = hexID(s.read("sys/bus/pci/devices", pci, "vendor")), hexID(s.read("sys/bus/pci/devices", pci, "device"))
		}
		link, speed := linkSettings(n, s)
		port := obj{"id": n, "address": strings.ToLower(s.read(d, "address")), "port": s.readInt(d, "dev_port"), "protocol": "ethernet",
			"supported_modes": link, "supported_ports": list{}, "auto_negotiation": false, "link_detected": s.read(d, "carrier") == "1",
			"link_speed": speed, "link_duplex": s.read(d, "duplex")}
		card := obj{"driver": drv, "driver_version": "", "vendor_id": vendor, "product_id": product, "vendor": pciVendor(vendor), "product": "",
			"numa_node": max(0, s.readInt(d, "device/numa_node")), "firmware_version": firmwareVersion(n, s), "ports": list{port}}
		if pci != "" {
			card["pci_address"] = pci
		}
		if vfs := s.readInt(d, "device/sriov_totalvfs"); vfs > 0 {
			card["sriov"] = obj{"current_vfs": s.readInt(d, "device/sriov_numvfs"), "maximum_vfs": vfs, "vfs": list{}}
		}
		out = append(out, card)
	}
	return obj{"cards": out, "total": len(out)}
}

// pciVendor names the makers of common network cards; the full table of PCI identities is not on board.
func pciVendor(id string) string {
	return map[string]string{"8086": "Intel Corporation", "1af4": "Red Hat, Inc.", "14e4": "Broadcom Inc.", "15b3": "Mellanox Technologies",
		"10ec": "Realtek Semiconductor Co., Ltd.", "1077": "QLogic Corp.", "19a2": "Emulex Corporation", "1425": "Chelsio Communications Inc",
		"1d6a": "Aquantia Corp.", "15ad": "VMware", "1d0f": "Amazon.com, Inc.", "1924": "Solarflare Communications"}[id]
}

// networks is the state of every interface, in the shape of LXD's network state.
func (s system) networks() obj {
	out := obj{}
	if s.root != "/" {
		return out
	}
	ifs, err := net.Interfaces()
	if err != nil {
		return out
	}
	for _, i := range ifs {
		kind := "broadcast"
		switch {
		case i.Flags&net.FlagLoopback != 0:
			kind = "loopback"
		case i.Flags&net.FlagPointToPoint != 0:
			kind = "point-to-point"
		case i.Flags&net.FlagBroadcast == 0:
			kind = "unknown"
		}
		state := "down"
		if i.Flags&net.FlagUp != 0 {
			state = "up"
		}
		addresses := list{}
		as, _ := i.Addrs()
		for _, a := range as {
			p, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			family, scope := "inet", "global"
			if p.IP.To4() == nil {
				family = "inet6"
			}
			if p.IP.IsLoopback() {
				scope = "local"
			} else if p.IP.IsLinkLocalUnicast() {
				scope = "link"
			}
			ones, _ := p.Mask.Size()
			addresses = append(addresses, obj{"family": family, "address": p.IP.String(), "netmask": strconv.Itoa(ones), "scope": scope})
		}
		o := obj{"type": kind, "hwaddr": i.HardwareAddr.String(), "state": state, "mtu": i.MTU, "addresses": addresses,
			"bond": nil, "bridge": nil, "vlan": nil, "ovn": nil, "counters": obj{}}
		d := "sys/class/net/" + i.Name
		if s.exists(d, "bridge") {
			o["bridge"] = obj{"upper_devices": s.list(d, "brif")}
		}
		if s.exists(d, "bonding") {
			o["bond"] = obj{"lower_devices": strings.Fields(s.read(d, "bonding/slaves"))}
		}
		if v := s.read("proc/net/vlan", i.Name); v != "" {
			vlan := obj{}
			for _, l := range strings.Split(v, "\n") {
				if f := strings.Fields(l); len(f) >= 3 && f[1] == "VID:" {
					vlan["vid"], _ = strconv.Atoi(f[2])
				} else if len(f) == 2 && f[0] == "Device:" {
					vlan["lower_device"] = f[1]
				}
			}
			o["vlan"] = vlan
		}
		out[i.Name] = o
	}
	return out
}

// ethtool asks the driver through the old but universal ioctl.
func ethtool(name string, data unsafe.Pointer) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var req struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(req.name[:unix.IFNAMSIZ-1], name)
	req.data = data
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); e != 0 {
		return e
	}
	return nil
}

// linkSettings returns the supported modes and the speed of the link in Mbit/s.
func linkSettings(n string, s system) (modes []string, speed int64) {
	modes = []string{}
	speed = max(0, s.readInt("sys/class/net", n, "speed"))
	if s.root != "/" {
		return
	}
	var cmd struct {
		cmd, supported, advertising uint32
		rest                        [32]byte
	}
	cmd.cmd = unix.ETHTOOL_GSET
	if ethtool(n, unsafe.Pointer(&cmd)) != nil {
		return
	}
	for bit, m := range map[uint]string{0: "10baseT/Half", 1: "10baseT/Full", 2: "100baseT/Half", 3: "100baseT/Full", 4: "1000baseT/Half", 5: "1000baseT/Full",
		12: "10000baseT/Full", 15: "2500baseX/Full", 17: "1000baseKX/Full", 18: "10000baseKX4/Full", 19: "10000baseKR/Full", 23: "40000baseKR4/Full",
		24: "40000baseCR4/Full", 25: "40000baseSR4/Full", 26: "40000baseLR4/Full", 31: "25000baseCR/Full"} {
		if cmd.supported&(1<<bit) != 0 {
			modes = append(modes, m)
		}
	}
	sort.Strings(modes)
	return
}

func firmwareVersion(n string, s system) string {
	if s.root != "/" {
		return ""
	}
	var info struct {
		cmd                                       uint32
		driver, version, fw, bus, erom, reserved2 [32]byte
		rest                                      [40]byte
	}
	info.cmd = unix.ETHTOOL_GDRVINFO
	if ethtool(n, unsafe.Pointer(&info)) != nil {
		return ""
	}
	return strings.TrimSpace(printable(unix.ByteSliceToString(info.fw[:])))
}

// PredictableName is the name that systemd's udev would give a PCI Ethernet interface; "" when this cannot be told. The light
// environment has no udev, and an inventory should not call eth0 what the installed system calls ens3.
func (s system) PredictableName(n string) string {
	d := "sys/class/net/" + n
	real, err := filepath.EvalSymlinks(s.path(d, "device"))
	if err != nil {
		return ""
	}
	addr := lastPCI(real)
	if addr == "" {
		return ""
	}
	p := "sys/bus/pci/devices/" + addr
	suffix := ""
	if s.exists(p, "physfn") { // virtual functions are named after their parents; leave them
		return ""
	}
	if port := s.readInt(d, "dev_port"); port > 0 {
		suffix = fmt.Sprintf("d%d", port)
	}
	if idx := firstOf(s.read(p, "acpi_index"), s.read(p, "index")); idx != "" {
		if i, err := strconv.Atoi(idx); err == nil && i > 0 && i < 16384 {
			return fmt.Sprintf("eno%d%s", i, suffix)
		}
	}
	domain, _ := strconv.ParseUint(addr[:4], 16, 16)
	bus, _ := strconv.ParseUint(addr[5:7], 16, 8)
	slot, _ := strconv.ParseUint(addr[8:10], 16, 8)
	fn := addr[11:]
	multi := false
	if b, err := os.ReadFile(s.path(p, "config")); err == nil && len(b) > 14 {
		multi = b[14]&0x80 != 0
	}
	if fn != "0" || multi {
		suffix = "f" + fn + suffix
	}
	dom := ""
	if domain > 0 {
		dom = fmt.Sprintf("P%d", domain)
	}
	for _, hp := range s.list("sys/bus/pci/slots") {
		if i, err := strconv.Atoi(hp); err == nil && i > 0 && s.read("sys/bus/pci/slots", hp, "address") == addr[:10] {
			return fmt.Sprintf("en%ss%d%s", dom, i, suffix)
		}
	}
	return fmt.Sprintf("en%sp%ds%d%s", dom, bus, slot, suffix)
}

// ifreqFlags changes an interface's flags.
func setFlags(name string, set, clear uint16) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, r); err != nil {
		return err
	}
	r.SetUint16(r.Uint16()&^clear | set)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}

func setAddress(name string, req uint, ip net.IP) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := r.SetInet4Addr(ip.To4()); err != nil {
		return err
	}
	return unix.IoctlIfreq(fd, req, r)
}

// rename gives an interface that is down another name.
func rename(from, to string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if len(to) >= unix.IFNAMSIZ {
		return unix.ENAMETOOLONG
	}
	var req [2][unix.IFNAMSIZ]byte
	copy(req[0][:], from)
	copy(req[1][:], to)
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), unix.SIOCSIFNAME, uintptr(unsafe.Pointer(&req))); e != 0 {
		return e
	}
	return nil
}

// rtentry is the kernel's struct of the route ioctls.
type rtentry struct {
	_             uint64
	dst, gw, mask unix.RawSockaddrInet4
	flags         uint16
	_             int16
	_             uint64
	_             uint64
	metric        int16
	dev           *byte
	mtu, window   uint64
	irtt          uint16
}

// addDefaultRoute sends everything else to gateway through dev.
func addDefaultRoute(dev string, gateway net.IP) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	name := append([]byte(dev), 0)
	rt := rtentry{flags: unix.RTF_UP | unix.RTF_GATEWAY, dev: &name[0]}
	rt.dst.Family, rt.gw.Family, rt.mask.Family = unix.AF_INET, unix.AF_INET, unix.AF_INET
	copy(rt.gw.Addr[:], gateway.To4())
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), unix.SIOCADDRT, uintptr(unsafe.Pointer(&rt))); e != 0 && e != unix.EEXIST {
		return e
	}
	return nil
}
