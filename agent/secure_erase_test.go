package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/api"
)

// fakeNVMe is a controller that remembers what it was asked.
type fakeNVMe struct {
	oacs             uint16
	fna, flbas, dps  byte
	sanicap          uint32
	namespaces       int
	fail             map[uint8]error
	status           []uint16 // answers to the sanitize log, the last one again and again
	done             []string
	limits           []time.Duration
	identifyFails    bool
	unknownNamespace bool
}

func (f *fakeNVMe) namespace() (uint32, error) {
	if f.unknownNamespace {
		return 0, errors.New("inappropriate ioctl")
	}
	return 1, nil
}

func (f *fakeNVMe) admin(op uint8, nsid, cdw10, cdw11 uint32, buf []byte, limit time.Duration) error {
	if err := f.fail[op]; err != nil {
		return err
	}
	le := binary.LittleEndian
	switch op {
	case 0x06:
		if f.identifyFails {
			return errors.New("status 0x4002")
		}
		switch cdw10 {
		case 0:
			buf[26], buf[29] = f.flbas, f.dps
		case 1:
			le.PutUint16(buf[256:], f.oacs)
			le.PutUint32(buf[328:], f.sanicap)
			buf[524] = f.fna
			le.PutUint32(buf[516:], uint32(f.namespaces))
		case 2:
			for i := range f.namespaces {
				le.PutUint32(buf[4*i:], uint32(i+1))
			}
		}
	case 0x02:
		if cdw10 != 0x81|127<<16 || len(buf) != 512 {
			return fmt.Errorf("log %#x of %d bytes", cdw10, len(buf))
		}
		le.PutUint16(buf, 0x8000)
		le.PutUint16(buf[2:], f.status[0])
		if len(f.status) > 1 {
			f.status = f.status[1:]
		}
	default:
		f.done = append(f.done, fmt.Sprintf("%#x ns %d cdw10 %#x", op, nsid, cdw10))
		f.limits = append(f.limits, limit)
	}
	return nil
}

func TestEraseNVMe(t *testing.T) {
	sanitizePoll = time.Microsecond
	for name, c := range map[string]struct {
		d         fakeNVMe
		how, want string // want: what was sent, or part of the error
	}{
		"sanitize, cryptographic":    {fakeNVMe{oacs: 2, fna: 4, sanicap: 7, namespaces: 1, status: []uint16{2, 2, 1}}, "NVMe sanitize, cryptographic", "0x84 ns 0 cdw10 0x4"},
		"sanitize, block erase":      {fakeNVMe{oacs: 2, sanicap: 2, namespaces: 1, status: []uint16{2, 4}}, "NVMe sanitize, block erase", "0x84 ns 0 cdw10 0x2"},
		"format, cryptographic":      {fakeNVMe{oacs: 2, fna: 4, flbas: 1, namespaces: 1}, "NVMe format, cryptographic", "0x80 ns 1 cdw10 0x401"},
		"format, user data":          {fakeNVMe{oacs: 2, namespaces: 1}, "NVMe format, user data", "0x80 ns 1 cdw10 0x200"},
		"format keeps its metadata":  {fakeNVMe{oacs: 2, flbas: 0x13, dps: 0x9, namespaces: 1}, "NVMe format, user data", "0x80 ns 1 cdw10 0x333"},
		"failed sanitize, format":    {fakeNVMe{oacs: 2, sanicap: 2, namespaces: 1, status: []uint16{3}}, "NVMe format, user data", "0x84 ns 0 cdw10 0x2, 0x80 ns 1 cdw10 0x200"},
		"not alone: format its own":  {fakeNVMe{oacs: 2, sanicap: 7, namespaces: 2}, "NVMe format, user data", "0x80 ns 1 cdw10 0x200"},
		"not alone, format is wide":  {fakeNVMe{oacs: 2, fna: 2, sanicap: 7, namespaces: 2}, "", "would erase them all"},
		"offers nothing":             {fakeNVMe{namespaces: 1}, "", errNoSecureErase.Error()},
		"refuses format":             {fakeNVMe{oacs: 2, namespaces: 1, fail: map[uint8]error{0x80: errors.New("status 0x10a")}}, "", "0x10a"},
		"does not identify":          {fakeNVMe{identifyFails: true}, "", "identify controller"},
		"is no namespace":            {fakeNVMe{unknownNamespace: true}, "", "ioctl"},
		"sanitize, only overwriting": {fakeNVMe{sanicap: 4, namespaces: 1, status: []uint16{1}}, "NVMe sanitize, overwrite", "0x84 ns 0 cdw10 0x13"},
	} {
		t.Run(name, func(t *testing.T) {
			how, err := eraseNVMe(t.Context(), &c.d, func(string) {})
			if how != c.how {
				t.Fatalf("%q, %v", how, err)
			}
			if sent := strings.Join(c.d.done, ", "); c.how != "" && (err != nil || sent != c.want) {
				t.Fatalf("sent %q, %v; want %q", sent, err, c.want)
			}
			if c.how == "" && (!errors.Is(err, errNoSecureErase) || !strings.Contains(err.Error(), c.want)) {
				t.Fatalf("%v, want %q", err, c.want)
			}
		})
	}
}

// fakeATA answers as a drive and hdparm do.
type fakeATA struct {
	words map[int]uint16
	fail  string // the option whose command fails
	state string
	done  []string
}

func (f *fakeATA) identify() ([]byte, error) {
	id := make([]byte, 512)
	for n, w := range f.words {
		binary.LittleEndian.PutUint16(id[2*n:], w)
	}
	return id, nil
}

func (f *fakeATA) hdparm(_ context.Context, args ...string) ([]string, error) {
	line := strings.Join(args, " ")
	f.done = append(f.done, strings.TrimPrefix(strings.ReplaceAll(line, "--user-master u ", ""), "--yes-i-know-what-i-am-doing "))
	if f.fail != "" && strings.Contains(line, f.fail) {
		return nil, errors.New("SG_IO: bad/missing sense data")
	}
	if strings.Contains(line, "--sanitize-status") {
		return []string{"Sanitize status:", "    " + f.state}, nil
	}
	return nil, nil
}

func TestEraseATA(t *testing.T) {
	sanitizePoll = time.Microsecond
	const security, enhanced, frozen, locked, enabled = 0x0001, 0x0020, 0x0008, 0x0004, 0x0002
	words := func(w128, w59 uint16) map[int]uint16 {
		return map[int]uint16{82: 0x0002, 128: w128, 59: w59, 89: 30, 90: 0x8000 | 45}
	}
	for name, c := range map[string]struct {
		d    fakeATA
		how  string
		want []string // commands
		err  string
	}{
		"enhanced":            {fakeATA{words: words(security|enhanced, 0)}, "ATA security erase, enhanced", []string{"--security-set-pass ingot", "--security-erase-enhanced ingot"}, ""},
		"plain":               {fakeATA{words: words(security, 0)}, "ATA security erase", []string{"--security-set-pass ingot", "--security-erase ingot"}, ""},
		"cut off before":      {fakeATA{words: words(security|enabled|locked, 0)}, "ATA security erase", []string{"--security-unlock ingot", "--security-disable ingot", "--security-set-pass ingot", "--security-erase ingot"}, ""},
		"frozen":              {fakeATA{words: words(security|frozen, 0)}, "", nil, "froze"},
		"frozen but sanitize": {fakeATA{words: words(security|frozen, 1<<12|1<<13), state: "Last Sanitize Operation Completed Without Error"}, "ATA sanitize, cryptographic", []string{"--sanitize-crypto-scramble", "--sanitize-status"}, ""},
		"sanitize fails":      {fakeATA{words: words(security|frozen, 1<<12|1<<15), state: "Sanitize operation failed"}, "", []string{"--sanitize-block-erase", "--sanitize-status"}, "froze"},
		"foreign password":    {fakeATA{words: words(security|enabled|locked, 0), fail: "unlock"}, "", []string{"--security-unlock ingot"}, "password that is not known"},
		"erase fails":         {fakeATA{words: words(security, 0), fail: "--security-erase"}, "", []string{"--security-set-pass ingot", "--security-erase ingot", "--security-disable ingot"}, "sense data"},
		"no feature":          {fakeATA{}, "", nil, "no security feature"},
	} {
		t.Run(name, func(t *testing.T) {
			how, err := eraseATA(t.Context(), &c.d, func(string) {})
			if how != c.how || !slices.Equal(c.d.done, c.want) {
				t.Fatalf("%q by %q, %v", how, c.d.done, err)
			}
			if (err == nil) != (c.err == "") || err != nil && (!errors.Is(err, errNoSecureErase) || !strings.Contains(err.Error(), c.err)) {
				t.Fatalf("%v, want %q", err, c.err)
			}
		})
	}
	if a := parseATA(func() []byte { id, _ := (&fakeATA{words: words(security|enhanced, 0)}).identify(); return id }()); a.minutes != 90 {
		t.Errorf("%d minutes", a.minutes)
	}
}

func TestSamplesTellWhatIsStillThere(t *testing.T) {
	d := fileDisk(t, "vda", 16<<20)
	tg := target{disk: d, verified: true}
	f, err := os.OpenFile(d.Path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("secret"), 8<<20); err != nil {
		t.Fatal(err)
	}
	s, err := sample(tg)
	if err != nil || len(s) != 1 {
		t.Fatalf("%d samples, %v", len(s), err)
	}
	if err := s.gone(tg); err == nil {
		t.Fatal("a drive that did nothing was believed")
	}
	if _, err := f.WriteAt([]byte("noise!"), 8<<20); err != nil { // as after a cryptographic erase
		t.Fatal(err)
	}
	if err := s.gone(tg); err != nil {
		t.Fatal(err)
	}
}

// TestEraseEveryDisk has one result for each disk, whatever becomes of the others.
func TestEraseEveryDisk(t *testing.T) {
	good, bad, third := fileDisk(t, "vda", 8<<20), fileDisk(t, "vdb", 8<<20), fileDisk(t, "sda", 8<<20)
	third.Type = "sata" // a file takes no ATA commands: it is overwritten
	bad.Path = bad.Path + ".gone"
	for _, d := range []Disk{good, third} {
		if err := os.WriteFile(d.Path, []byte(strings.Repeat("secret! ", 1<<20)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	results := map[string]string{}
	e := eraser{logf: t.Logf, progress: func(string) {}, result: func(disk, how string, err error) {
		mu.Lock()
		defer mu.Unlock()
		results[disk] = fmt.Sprintf("%s %v", how, err != nil)
	}}
	var ids []api.DiskID
	for _, d := range []Disk{good, bad, third} {
		ids = append(ids, api.DiskID{Serial: d.Serial, Size: d.Size})
	}
	err := e.erase(t.Context(), api.ErasePlan{Mode: "secure", Disks: ids}, []Disk{good, bad, third})
	if err == nil || !strings.Contains(err.Error(), "erase "+bad.Path) {
		t.Fatalf("got %v", err)
	}
	const instead = "overwritten with zeros instead of secure erase false"
	if results["vda"] != instead || results["sda"] != instead || results["vdb"] != " true" {
		t.Fatalf("%q", results)
	}
	for _, d := range []Disk{good, third} {
		if b, err := os.ReadFile(d.Path); err != nil || !isZero(b[:4*mib]) || !isZero(b[4*mib:]) {
			t.Fatalf("%s was not erased", d.Name)
		}
	}
	results = map[string]string{}
	if err := e.erase(t.Context(), api.ErasePlan{Mode: "secure-or-quick", Disks: ids[:1]}, []Disk{good}); err != nil || results["vda"] != "quick instead of secure erase false" {
		t.Fatalf("%v, %q", err, results)
	}
}
