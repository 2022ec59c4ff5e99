// Command bench measures what users of an installation feel, on the real binary with SQLite: how fast it starts, what it needs
// idle, how long a list of 10,000 machines takes, and how many allocations per second 16 clients get. It prints one line a figure.
// It writes the 10,000 machines into the database itself, before the server starts: they are not what is measured.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/api/client"
	"github.com/ingot-metal/ingot/storage"
)

func main() {
	bin := flag.String("bin", "bin/ingot", "the program")
	machines := flag.Int("machines", 10000, "machines in the database")
	clients := flag.Int("clients", 16, "clients that allocate at once")
	allocations := flag.Int("allocations", 3000, "how many allocations to time")
	settle := flag.Duration("settle", 5*time.Second, "how long the server idles before its memory is read")
	flag.Parse()
	if err := bench(context.Background(), *bin, *machines, *clients, *allocations, *settle); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func figure(name, format string, args ...any) {
	fmt.Printf("%-44s %s\n", name, fmt.Sprintf(format, args...))
}

func bench(ctx context.Context, bin string, machines, clients, allocations int, settle time.Duration) error {
	if allocations > machines {
		return fmt.Errorf("%d allocations of %d machines", allocations, machines)
	}
	empty, err := os.MkdirTemp("", "ingot-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(empty)
	s, first, err := startServer(ctx, bin, empty)
	if err != nil {
		return err
	}
	figure("start on an empty folder", "%.0f ms", ms(first))
	time.Sleep(settle)
	rss, err := s.rss()
	if err != nil {
		return err
	}
	figure("resident memory, idle all-in-one", "%.1f MB", float64(rss)/1e6)
	if err := s.stop(); err != nil {
		return err
	}
	s, again, err := startServer(ctx, bin, empty)
	if err != nil {
		return err
	}
	figure("start on an existing folder", "%.0f ms", ms(again))
	if err := s.stop(); err != nil {
		return err
	}

	begin := time.Now()
	if err := fill(ctx, empty, machines); err != nil {
		return fmt.Errorf("fill: %w", err)
	}
	figure(fmt.Sprintf("(writing %d machines took", machines), "%.1f s)", time.Since(begin).Seconds())
	if s, first, err = startServer(ctx, bin, empty); err != nil {
		return err
	}
	defer s.stop()
	figure(fmt.Sprintf("start with %d machines", machines), "%.0f ms", ms(first))
	if err := s.rawList(ctx, machines); err != nil {
		return fmt.Errorf("list: %w", err)
	}
	if err := s.list(ctx, machines); err != nil {
		return fmt.Errorf("list: %w", err)
	}
	if err := s.allocate(ctx, clients, allocations); err != nil {
		return fmt.Errorf("allocate: %w", err)
	}
	if rss, err = s.rss(); err != nil {
		return err
	}
	figure(fmt.Sprintf("resident memory after that, %d machines", machines), "%.1f MB", float64(rss)/1e6)
	return nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// fill writes Ready machines with an interface and a disk each.
func fill(ctx context.Context, dir string, n int) error {
	db, err := storage.Open(ctx, "sqlite:"+filepath.Join(dir, "ingot.db"), storage.Options{})
	if err != nil {
		return err
	}
	defer db.Close()
	const batch = 1000
	for from := 0; from < n; from += batch {
		err := db.Write(ctx, func(tx *storage.Tx) error {
			for i := from; i < min(n, from+batch); i++ {
				if err := fillOne(tx, i); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func fillOne(tx *storage.Tx, i int) error {
	pool, vlan := storage.DefaultPoolID, storage.DefaultVLANID
	node := storage.Node{SystemID: "b" + fmt.Sprintf("%05s", strconv.FormatInt(int64(i), 36)), Hostname: fmt.Sprintf("bench-%05d", i),
		DomainID: storage.DefaultDomainID, ZoneID: storage.DefaultZoneID, PoolID: &pool, Status: storage.StatusReady, Architecture: "amd64/generic",
		CPUCount: int64(2 + i%63), Memory: int64(2048 * (1 + i%64)), PowerType: "manual", PowerState: "off", Netboot: true}
	if err := tx.InsertNode(&node); err != nil {
		return err
	}
	mac := fmt.Sprintf("52:54:01:%02x:%02x:%02x", i>>16, i>>8&0xff, i&0xff)
	nic := storage.Interface{NodeID: node.ID, Name: "eth0", Type: "physical", MACAddress: mac, VLANID: &vlan, Enabled: true, LinkConnected: true}
	if err := tx.InsertInterface(&nic); err != nil {
		return err
	}
	model, serial := "bench", fmt.Sprintf("bench-%d", i)
	disk := storage.BlockDevice{NodeID: node.ID, Name: "sda", Type: "physical", Serial: &serial, Model: &model, Size: 1 << 40, BlockSize: 512}
	return tx.InsertBlockDevice(&disk)
}

type running struct {
	cmd    *exec.Cmd
	client *client.Client
	url    string
	key    string
	out    *bytes.Buffer
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// startServer starts `ingot dev` without machines and returns how long it took until /healthz answered 200.
func startServer(ctx context.Context, bin, dir string) (*running, time.Duration, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, 0, err
	}
	if _, err := netip.ParseAddrPort(addr); err != nil {
		return nil, 0, err
	}
	s := &running{cmd: exec.CommandContext(ctx, bin, "dev", "--dir", dir, "--http", addr, "--machines", "0", "--log-level", "error"), out: &bytes.Buffer{}}
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	begin := time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, 0, err
	}
	for {
		res, err := http.Get("http://" + addr + "/healthz")
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				break
			}
		}
		if time.Since(begin) > time.Minute {
			s.stop()
			return nil, 0, fmt.Errorf("not ready within a minute:\n%s", s.out)
		}
		time.Sleep(2 * time.Millisecond)
	}
	took := time.Since(begin)
	key, err := os.ReadFile(filepath.Join(dir, "admin.apikey"))
	if err != nil {
		return nil, 0, err
	}
	s.url, s.key = "http://"+addr, strings.TrimSpace(string(key))
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 64
	s.client, err = client.New(client.Config{URL: s.url, APIKey: s.key, HTTP: &http.Client{Transport: transport}})
	return s, took, err
}

func (s *running) stop() error {
	if s.cmd.ProcessState != nil {
		return nil
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("%w\n%s", err, s.out)
	}
	return nil
}

// rss is the resident memory of the server.
func (s *running) rss() (int64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if rest, ok := strings.CutPrefix(sc.Text(), "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb * 1024, err
		}
	}
	return 0, errors.Join(errors.New("no VmRSS"), sc.Err())
}

// rawList reads the list without looking at it: what the server takes, and the wire.
func (s *running) rawList(ctx context.Context, machines int) error {
	k := strings.Split(s.key, ":")
	var times []time.Duration
	size := int64(0)
	for range 7 {
		begin := time.Now()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/MAAS/api/2.0/machines/", nil)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", fmt.Sprintf(`OAuth oauth_version="1.0", oauth_signature_method="PLAINTEXT", oauth_consumer_key="%s", oauth_token="%s", oauth_signature="%%26%s", oauth_nonce="%d", oauth_timestamp="%d"`,
			k[0], k[1], k[2], begin.UnixNano(), begin.Unix()))
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		size, err = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if err != nil {
			return err
		}
		if res.StatusCode != http.StatusOK {
			return errors.New(res.Status)
		}
		times = append(times, time.Since(begin))
	}
	slices.Sort(times)
	figure(fmt.Sprintf("list %d machines", machines), "median %.0f ms, best %.0f ms, %.1f MB", ms(times[len(times)/2]), ms(times[0]), float64(size)/1e6)
	return nil
}

func (s *running) list(ctx context.Context, want int) error {
	var times []time.Duration
	for range 7 {
		begin := time.Now()
		l, err := s.client.MachinesList(ctx, api.MachinesListParams{})
		if err != nil {
			return err
		}
		times = append(times, time.Since(begin))
		if len(l) != want {
			return fmt.Errorf("%d machines instead of %d", len(l), want)
		}
	}
	slices.Sort(times)
	figure(fmt.Sprintf("list %d machines, with the SDK's decoding", want), "median %.0f ms, best %.0f ms", ms(times[len(times)/2]), ms(times[0]))
	return nil
}

// allocate has clients allocate at once until so many machines are handed out, and checks that none was handed out twice.
func (s *running) allocate(ctx context.Context, clients, n int) error {
	var mu sync.Mutex
	seen := map[string]bool{}
	var firstErr error
	var wg sync.WaitGroup
	begin := time.Now()
	var latencies []time.Duration
	for c := range clients {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := c; i < n; i += clients {
				at := time.Now()
				m, err := s.client.MachinesAllocate(ctx, api.MachinesAllocateParams{Mem: []string{"2048"}, CPUCount: []string{"2"}})
				took := time.Since(at)
				mu.Lock()
				switch {
				case err != nil:
					firstErr = errors.Join(firstErr, err)
				case seen[m.SystemID]:
					firstErr = errors.Join(firstErr, fmt.Errorf("%s was handed out twice", m.SystemID))
				default:
					seen[m.SystemID] = true
					latencies = append(latencies, took)
				}
				stop := firstErr != nil
				mu.Unlock()
				if stop {
					return
				}
			}
		}()
	}
	wg.Wait()
	if firstErr != nil {
		return firstErr
	}
	took := time.Since(begin)
	slices.Sort(latencies)
	figure(fmt.Sprintf("allocate, %d clients", clients), "%.0f per second, median %.1f ms, 99%% %.1f ms, none twice", float64(n)/took.Seconds(), ms(latencies[len(latencies)/2]), ms(latencies[len(latencies)*99/100]))
	return nil
}
