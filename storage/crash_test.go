package storage_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

// TestMain lets the test binary be the process that TestAcknowledgedSurvivesKill kills.
func TestMain(m *testing.M) {
	if dsn := os.Getenv("INGOT_TEST_WRITER"); dsn != "" {
		writeForEver(dsn)
		return
	}
	os.Exit(m.Run())
}

// writeForEver adds users by eight writers and says the name of each once it is acknowledged.
func writeForEver(dsn string) {
	db, err := storage.Open(ctx, dsn, storage.Options{})
	if err != nil {
		fmt.Println("error", err)
		return
	}
	var out sync.Mutex
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("w%d-%d", w, i)
				err := db.Write(ctx, func(tx *storage.Tx) error { return tx.InsertUser(&storage.User{Username: name}) })
				out.Lock()
				if err != nil {
					fmt.Println("error", err)
				} else {
					fmt.Println("user", name)
				}
				out.Unlock()
			}
		})
	}
	wg.Wait()
}

// A process that is killed in the middle of its writes loses none that it acknowledged, and leaves a sound database.
func TestAcknowledgedSurvivesKill(t *testing.T) {
	storagetest.EachDSN(t, func(t *testing.T, dsn string) {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "INGOT_TEST_WRITER="+dsn)
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var names []string
		lines := bufio.NewScanner(pipe)
		for lines.Scan() {
			kind, rest, _ := strings.Cut(lines.Text(), " ")
			if kind != "user" {
				t.Errorf("the writer says: %s", lines.Text())
				break
			}
			if names = append(names, rest); len(names) == 300 {
				break
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed
		db, err := storage.Open(ctx, dsn, storage.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = db.Close() }()
		read(t, db, func(tx *storage.Tx) error {
			for _, name := range names {
				if _, err := tx.UserByName(name); err != nil {
					t.Errorf("%s was acknowledged: %v", name, err)
				}
			}
			if db.Engine() == "sqlite" {
				var verdict string
				if err := tx.QueryRow("pragma integrity_check").Scan(&verdict); err != nil || verdict != "ok" {
					t.Errorf("integrity: %s, %v", verdict, err)
				}
			}
			return nil
		})
		if len(names) < 300 {
			t.Errorf("only %d users", len(names))
		}
	})
}
