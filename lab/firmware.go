package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"
)

type targetKind int

const (
	targetExit     targetKind = iota // back to the firmware, which tries the next device
	targetKernel                     // a kernel with its initrd was loaded
	targetLocal                      // boot from a disk
	targetPowerOff                   // switch off
	targetReboot                     // start again
	targetHang                       // a prompt waits for a human
	targetLoader                     // another loader was chained
)

// target is what a boot file ended in.
type target struct {
	kind    targetKind
	disk    int // targetLocal: index, -1 for the first that boots
	kernel  string
	initrds []string
	cmdline string
	loader  string // targetLoader: its URL
	why     string
}

// maxBootFile bounds what is kept of a boot file or a loader; kernels and images are hashed and dropped.
const maxBootFile = 8 << 20

// get reads a URL (http or tftp) for a loader. keep says whether the content is wanted.
func (m *Machine) get(ctx context.Context, u, agent string, keep bool) ([]byte, error) {
	var buf bytes.Buffer
	h := sha256.New()
	n, status, err := m.read1(ctx, u, agent, &limited{w: &buf, left: maxBootFile, keep: keep}, h)
	f := Fetch{URL: u, Status: status, Bytes: n}
	if err == nil {
		f.SHA256 = hex.EncodeToString(h.Sum(nil))
		err = checkContentName(u, f.SHA256)
	}
	m.read(f)
	if err != nil {
		m.step(scheme(u), fmt.Sprintf("%s: %v", u, err))
		return nil, err
	}
	m.step(scheme(u), fmt.Sprintf("%s: %d bytes", u, n))
	return buf.Bytes(), nil
}

func scheme(u string) string {
	s, _, _ := strings.Cut(u, ":")
	return s
}

type limited struct {
	w    *bytes.Buffer
	left int
	keep bool
}

func (l *limited) Write(p []byte) (int, error) {
	if !l.keep {
		return len(p), nil
	}
	if len(p) > l.left {
		return 0, errors.New("the file is too large for a boot loader")
	}
	l.left -= len(p)
	return l.w.Write(p)
}

func (m *Machine) read1(ctx context.Context, u, agent string, w io.Writer, h hash.Hash) (int64, int, error) {
	out := io.MultiWriter(w, h)
	if rest, ok := strings.CutPrefix(u, "tftp://"); ok {
		_, name, _ := strings.Cut(rest, "/")
		o := tftpOptions{blksize: 1408, tsize: true}
		if agent == "grub" {
			o = tftpOptions{blksize: 1024, tsize: true}
		}
		n, err := m.tftpGet(ctx, name, o, out)
		return n, 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return 0, 0, err
	}
	req.Header.Set("User-Agent", agent)
	resp, err := m.http.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, resp.StatusCode, fmt.Errorf("HTTP %s", resp.Status)
	}
	n, err := io.Copy(out, resp.Body)
	if err == nil && resp.ContentLength < 0 {
		err = errors.New("the answer has no Content-Length, which boot loaders need")
	}
	return n, resp.StatusCode, err
}

var contentName = regexp.MustCompile(`/images/([0-9a-f]{7,64})/`)

// checkContentName verifies a file below /images/ against the digest that its path begins with.
func checkContentName(u, sum string) error {
	if g := contentName.FindStringSubmatch(u); g != nil && !strings.HasPrefix(sum, g[1]) {
		return fmt.Errorf("the content of %s has SHA-256 %s", u, sum)
	}
	return nil
}

// netboot is the firmware's part: DHCP, the loader, its configuration, up to a kernel in memory.
func (m *Machine) netboot(ctx context.Context) (target, error) {
	client := map[Firmware]dhcpClient{BIOSiPXE: dhcpIPXE, BIOSPXE: dhcpPXE, UEFITFTP: dhcpUEFI, UEFIHTTP: dhcpUEFIHTTP}[m.cfg.Firmware]
	if err := m.enter(ctx, "dhcp"); err != nil {
		return target{}, err
	}
	l, err := m.dhcp(ctx, client)
	if err != nil {
		return target{}, err
	}
	if l.Filename == "" {
		return target{}, errors.New("the DHCP answer names no boot file")
	}
	if err := m.enter(ctx, "loader"); err != nil {
		return target{}, err
	}
	switch m.cfg.Firmware {
	case BIOSiPXE:
		if strings.Contains(l.Filename, "://") {
			return m.ipxe(ctx, l, l.Filename)
		}
		return m.pxelinux(ctx, l)
	case BIOSPXE:
		return m.pxelinux(ctx, l)
	case UEFITFTP:
		return m.uefi(ctx, l, "tftp://"+hostOf(m.tftpServer().String())+"/"+strings.TrimLeft(l.Filename, "/"))
	default:
		return m.uefi(ctx, l, l.Filename)
	}
}

func hostOf(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return host
}

// uefi loads an EFI program from u and behaves as that program does.
func (m *Machine) uefi(ctx context.Context, l *lease, u string) (target, error) {
	var prog []byte
	var err error
	if strings.HasPrefix(u, "tftp://") {
		// OVMF asks for the size first and aborts the transfer, then reads with the size known.
		name := strings.TrimPrefix(u, "tftp://")
		_, name, _ = strings.Cut(name, "/")
		if _, err := m.tftpGet(ctx, name, tftpOptions{tsize: true, blksize: 1468, window: 4, abort: true}, io.Discard); err != nil {
			return target{}, err
		}
		var buf bytes.Buffer
		h := sha256.New()
		n, err := m.tftpGet(ctx, name, tftpOptions{blksize: 1468, window: 4}, io.MultiWriter(&buf, h))
		if err != nil {
			return target{}, err
		}
		m.read(Fetch{URL: u, Bytes: n, SHA256: hex.EncodeToString(h.Sum(nil))})
		m.step("tftp", fmt.Sprintf("%s: %d bytes", u, n))
		prog = buf.Bytes()
	} else {
		if err := m.head(ctx, u); err != nil {
			return target{}, err
		}
		if prog, err = m.get(ctx, u, "UefiHttpBoot/1.0", true); err != nil {
			return target{}, err
		}
	}
	return m.efiProgram(ctx, l, u, prog)
}

func (m *Machine) head(ctx context.Context, u string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, u, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "UefiHttpBoot/1.0")
	resp, err := m.http.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.ContentLength <= 0 {
		return fmt.Errorf("HEAD %s: %s with Content-Length %d; UEFI needs both", u, resp.Status, resp.ContentLength)
	}
	return nil
}

// efiProgram acts as the EFI program whose bytes these are: iPXE asks DHCP again and runs a script, shim loads GRUB from beside
// itself, GRUB reads grub.cfg. What says nothing of itself is taken by its name.
func (m *Machine) efiProgram(ctx context.Context, l *lease, u string, prog []byte) (target, error) {
	name := strings.ToLower(path.Base(u))
	isGRUB := bytes.Contains(prog, []byte("grub_")) || bytes.Contains(prog, []byte("GNU GRUB"))
	isIPXE := bytes.Contains(prog, []byte("iPXE"))
	isShim := bytes.Contains(prog, []byte("shim")) || bytes.Contains(prog, utf16le("grubx64.efi")) || strings.HasPrefix(name, "boot") || strings.HasPrefix(name, "shim")
	switch {
	case isIPXE || strings.HasPrefix(name, "ipxe"):
		m.step("boot", "iPXE")
		again, err := m.dhcp(ctx, dhcpIPXE)
		if err != nil {
			return target{}, err
		}
		return m.ipxe(ctx, again, again.Filename)
	case isGRUB || !isShim:
		m.step("boot", "GRUB")
		return m.grub(ctx, l, u)
	default:
		m.step("boot", "shim")
		next := dirURL(u) + "grubx64.efi"
		if strings.HasPrefix(u, "http") {
			next = dirURL(u) + "/grubx64.efi" // shim doubles the slash
		}
		if _, err := m.get(ctx, next, "UefiHttpBoot/1.0", true); err != nil {
			return target{}, fmt.Errorf("shim: %w", err)
		}
		m.step("boot", "GRUB")
		return m.grub(ctx, l, next)
	}
}

func utf16le(s string) []byte {
	b := make([]byte, 0, 2*len(s))
	for i := range len(s) {
		b = append(b, s[i], 0)
	}
	return b
}

// dirURL is u up to and with its last slash.
func dirURL(u string) string {
	return u[:strings.LastIndexByte(u, '/')+1]
}

// resolve makes ref absolute as seen from base.
func resolve(base, ref string) (string, error) {
	if strings.Contains(ref, "://") {
		return ref, nil
	}
	b, err := url.Parse(base)
	if err != nil {
		return "", err
	}
	if strings.HasPrefix(ref, "/") {
		return b.Scheme + "://" + b.Host + ref, nil
	}
	return dirURL(base) + ref, nil
}

// consoleSleep waits as a boot file asks, thirty times faster: nobody reads a lab machine's console.
func consoleSleep(ctx context.Context, seconds string) error {
	n, err := strconv.Atoi(seconds)
	if err != nil || n < 0 {
		return fmt.Errorf("sleep %q", seconds)
	}
	return sleep(ctx, time.Duration(min(n, 600))*time.Second/30)
}

// loadKernel reads the kernel and the initrds of a target and so proves that they are there.
func (m *Machine) loadKernel(ctx context.Context, t target, agent string) error {
	if err := m.enter(ctx, "kernel"); err != nil {
		return err
	}
	if _, err := m.get(ctx, t.kernel, agent, false); err != nil {
		return fmt.Errorf("kernel: %w", err)
	}
	for _, i := range t.initrds {
		if _, err := m.get(ctx, i, agent, false); err != nil {
			return fmt.Errorf("initrd: %w", err)
		}
	}
	return nil
}
