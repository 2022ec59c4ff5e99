package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// dhcpClient is one of the programs that ask for an address during a boot. They differ in what they send, as captured from the
// real ones.
type dhcpClient int

const (
	dhcpIPXE      dhcpClient = iota // an iPXE ROM or loader
	dhcpPXE                         // BIOS PXE ROM
	dhcpUEFI                        // native UEFI PXE
	dhcpUEFIHTTP                    // UEFI HTTP boot
	dhcpInitramfs                   // klibc ipconfig
	dhcpAgent                       // the agent in the light environment
	dhcpSystem                      // systemd-networkd of an installed system
)

// lease is what a client was given.
type lease struct {
	IP       net.IP
	Filename string
	Next     net.IP // siaddr
	Prefix   string // option 210
	Class    string // option 60
	Server   net.IP
	Router   []net.IP
	DNS      []net.IP
	Duration time.Duration
}

var errNoOffer = errors.New("no DHCP offer")

// ipxeFeatures is option 175 as an iPXE ROM sends it: among others http (19), bzimage (24) and pxe.
var ipxeFeatures = []byte{
	0xb1, 0x05, 0x01, 0x1a, 0xf4, 0x10, 0x00, 0xeb, 0x03, 0x01, 0x00, 0x00, 0x17, 0x01, 0x01, 0x15, 0x01, 0x01,
	0x13, 0x01, 0x01, 0x11, 0x01, 0x01, 0x27, 0x01, 0x01, 0x19, 0x01, 0x01, 0x10, 0x01, 0x02, 0x18, 0x01, 0x01,
}

func (m *Machine) dhcpOptions(c dhcpClient) []dhcpv4.Modifier {
	arch := uint16(0)
	if m.cfg.Firmware.Mode() == "uefi" {
		arch = 7
	}
	undi := "002001"
	ndi := []byte{1, 2, 1}
	uuid := append([]byte{0}, guidBytes(m.cfg.UUID)...)
	// SMBIOS has the first three fields in little-endian order.
	uuid[1], uuid[2], uuid[3], uuid[4] = uuid[4], uuid[3], uuid[2], uuid[1]
	uuid[5], uuid[6] = uuid[6], uuid[5]
	uuid[7], uuid[8] = uuid[8], uuid[7]
	pxe := func(class string) []dhcpv4.Modifier {
		return []dhcpv4.Modifier{
			dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientSystemArchitectureType, binary.BigEndian.AppendUint16(nil, arch))),
			dhcpv4.WithOption(dhcpv4.OptClassIdentifier(fmt.Sprintf("%s:Arch:%05d:UNDI:%s", class, arch, undi))),
			dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientNetworkInterfaceIdentifier, ndi)),
			dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientMachineIdentifier, uuid)),
			dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(1472)),
			dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer, dhcpv4.OptionHostName,
				dhcpv4.OptionVendorSpecificInformation, dhcpv4.OptionClassIdentifier, dhcpv4.OptionTFTPServerName, dhcpv4.OptionBootfileName),
		}
	}
	clientID := dhcpv4.WithOption(dhcpv4.OptClientIdentifier(append([]byte{1}, m.hw...)))
	switch c {
	case dhcpIPXE:
		return append(pxe("PXEClient"), clientID,
			dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionUserClassInformation, []byte("iPXE"))),
			dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(175), ipxeFeatures)))
	case dhcpPXE:
		return append(pxe("PXEClient"), clientID, dhcpv4.WithBroadcast(true))
	case dhcpUEFI:
		undi, ndi = "003000", []byte{1, 3, 0}
		return append(pxe("PXEClient"), dhcpv4.WithBroadcast(true))
	case dhcpUEFIHTTP:
		arch, undi, ndi = 16, "003000", []byte{1, 3, 0}
		return append(pxe("HTTPClient"), dhcpv4.WithBroadcast(true))
	case dhcpInitramfs:
		return []dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptClassIdentifier("Linux ipconfig"))}
	case dhcpAgent:
		return []dhcpv4.Modifier{clientID, dhcpv4.WithOption(dhcpv4.OptClassIdentifier("ingot-agent"))}
	default: // networkd: a DUID made of the machine, so that it is the same at each boot
		duid := append([]byte{0xff, 0, 0, 0, 1, 0, 2, 0, 0, 0xab, 0x11}, guidBytes(m.cfg.UUID)[8:]...)
		return []dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptClientIdentifier(duid)), dhcpv4.WithOption(dhcpv4.OptHostName(m.cfg.Name))}
	}
}

// dhcp runs DISCOVER, OFFER, REQUEST, ACK. The server answers the socket that asked: on loopback nothing can be broadcast.
func (m *Machine) dhcp(ctx context.Context, c dhcpClient) (*lease, error) {
	conn, done, err := listenUDP(ctx, &m.faults)
	if err != nil {
		return nil, err
	}
	defer done()
	mods := m.dhcpOptions(c)
	if m.cfg.Relay.IsValid() {
		mods = append(mods, dhcpv4.WithGatewayIP(net.IP(m.cfg.Relay.AsSlice())))
	}
	acceptable := func(p *dhcpv4.DHCPv4) bool {
		// HTTP boot ignores an offer that does not say HTTPClient.
		return c != dhcpUEFIHTTP || strings.HasPrefix(p.ClassIdentifier(), "HTTPClient")
	}
	const rounds = 4
	for range rounds {
		discover, err := dhcpv4.NewDiscovery(m.hw, mods...)
		if err != nil {
			return nil, fmt.Errorf("DISCOVER: %w", err)
		}
		offer, err := m.exchange(ctx, conn, discover, func(p *dhcpv4.DHCPv4) bool {
			return p.MessageType() == dhcpv4.MessageTypeOffer && acceptable(p)
		})
		if errors.Is(err, errNoOffer) {
			continue
		}
		if err != nil {
			return nil, err
		}
		request, err := dhcpv4.NewRequestFromOffer(offer, mods...)
		if err != nil {
			return nil, fmt.Errorf("REQUEST: %w", err)
		}
		ack, err := m.exchange(ctx, conn, request, func(p *dhcpv4.DHCPv4) bool {
			return p.MessageType() == dhcpv4.MessageTypeAck || p.MessageType() == dhcpv4.MessageTypeNak
		})
		if errors.Is(err, errNoOffer) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if ack.MessageType() == dhcpv4.MessageTypeNak {
			m.step("dhcp", "NAK: "+ack.Message())
			if err := sleep(ctx, 100*time.Millisecond); err != nil {
				return nil, err
			}
			continue
		}
		l := &lease{
			IP: ack.YourIPAddr, Filename: ack.BootFileNameOption(), Next: ack.ServerIPAddr, Class: ack.ClassIdentifier(),
			Server: ack.ServerIdentifier(), Router: ack.Router(), DNS: ack.DNS(), Duration: ack.IPAddressLeaseTime(0),
			Prefix: string(ack.Options.Get(dhcpv4.GenericOptionCode(210))),
		}
		if l.Filename == "" {
			l.Filename = ack.BootFileName
		}
		if l.IP == nil || l.IP.IsUnspecified() {
			return nil, errors.New("the DHCP server acknowledged no address")
		}
		m.step("dhcp", fmt.Sprintf("%s, file %q", l.IP, l.Filename))
		m.mu.Lock()
		m.lease = l
		m.mu.Unlock()
		return l, nil
	}
	return nil, errNoOffer
}

// exchange sends a packet, again after a while, and returns the first answer that want accepts.
func (m *Machine) exchange(ctx context.Context, conn *lossyConn, p *dhcpv4.DHCPv4, want func(*dhcpv4.DHCPv4) bool) (*dhcpv4.DHCPv4, error) {
	server := net.UDPAddrFromAddrPort(m.cfg.DHCP)
	buf := make([]byte, 4096)
	for wait := 500 * time.Millisecond; wait <= 2*time.Second; wait *= 2 {
		if _, err := conn.WriteToUDP(p.ToBytes(), server); err != nil {
			return nil, err
		}
		if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return nil, err
		}
		for {
			n, _, err := conn.ReadFromUDP(buf)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				break
			}
			if err != nil {
				if sleep(ctx, wait) != nil { // refused: nobody listens there now
					return nil, ctx.Err()
				}
				break
			}
			a, err := dhcpv4.FromBytes(buf[:n])
			if err == nil && a.OpCode == dhcpv4.OpcodeBootReply && a.TransactionID == p.TransactionID && want(a) {
				return a, nil
			}
		}
	}
	return nil, errNoOffer
}

// tftpServer is the rack's TFTP listener.
func (m *Machine) tftpServer() *net.UDPAddr {
	if m.cfg.TFTP.IsValid() {
		return net.UDPAddrFromAddrPort(m.cfg.TFTP)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lease != nil && m.lease.Next != nil && !m.lease.Next.IsUnspecified() {
		return &net.UDPAddr{IP: m.lease.Next, Port: 69}
	}
	return &net.UDPAddr{IP: m.cfg.DHCP.Addr().AsSlice(), Port: 69}
}
