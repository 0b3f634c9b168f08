package deploy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

const shop = "web@aaaaaa calls=catalog,orders | catalog@aaaaaa | orders@aaaaaa calls=inventory,payments before=migrate workers=mailer | " +
	"inventory@aaaaaa | payments@aaaaaa"

func TestUpUpdateDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.run(func(ctx context.Context) {
			w.must(w.engine.Set(ctx, targets(shop)))
			w.must(w.engine.Wait(ctx, nil))
			if got := w.states(); got != "catalog=ready inventory=ready orders=ready payments=ready web=ready" {
				t.Error("after up:", got)
			}
			if slices.Index(w.order, "web") != 4 || slices.Index(w.order, "orders") != 3 {
				t.Error("started in the order", w.order)
			}
			for _, release := range []string{"bbbbbb", "cccccc"} {
				w.must(w.engine.Update(ctx, targets("orders@" + release + " calls=inventory,payments n=2 before=migrate workers=mailer")[0]))
				w.must(w.engine.Wait(ctx, []string{"orders"}))
				if got := w.serving("orders"); got != release+" "+release {
					t.Error("after an update there serve:", got)
				}
			}
			w.must(w.engine.Restart(ctx, []string{"orders", "web"}))
			w.must(w.engine.Wait(ctx, nil))
			w.must(w.engine.Attach(ctx, "web", "localhost:3000"))
			if got := w.serving("web"); got != "localhost:3000" {
				t.Error("attached:", got)
			}
			w.must(w.engine.Detach(ctx, "web", "localhost:3000"))
			if got := w.serving("web"); got != "aaaaaa" {
				t.Error("detached:", got)
			}
			w.must(w.engine.Stop(ctx))
			if len(w.statuses()) != 0 {
				t.Error("after down there run", w.statuses())
			}
		})
		if w.requests == 0 {
			t.Error("nothing was asked meanwhile")
		}
	})
}

func TestFailuresAreNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.behave["bbbbbb"], w.behave["cccccc"] = "exit", "before-fails"
		w.run(func(ctx context.Context) {
			w.must(w.engine.Set(ctx, targets("orders@aaaaaa before=migrate | web@aaaaaa calls=orders")))
			w.must(w.engine.Wait(ctx, nil))
			for release, want := range map[string]string{
				"bbbbbb": "orders is ready: release bbbbbb failed, aaaaaa serves on: exited with code 3 after 12 ms\n    listen: address in use",
				"cccccc": "orders is ready: release cccccc failed, aaaaaa serves on: before: exited with code 1 after 3 ms\n    listen: address in use",
			} {
				w.must(w.engine.Update(ctx, targets("orders@" + release + " before=migrate")[0]))
				var failed *FailedError
				if err := w.engine.Wait(ctx, nil); !errors.As(err, &failed) || err.Error() != want {
					t.Errorf("Wait says %v, want %s", err, want)
				}
				if got := w.serving("orders"); got != "aaaaaa" {
					t.Error("there serve:", got)
				}
			}
			w.engine.Building("orders")
			w.engine.BuildFailed("orders", "# shop/orders\nmain.go:5:2: undefined: foo\n")
			const want = "orders is ready: build failed: main.go:5:2: undefined: foo\n    # shop/orders\n    main.go:5:2: undefined: foo"
			if err := w.engine.Wait(ctx, nil); err == nil || err.Error() != want {
				t.Errorf("Wait says %v, want %s", err, want)
			}
		})
	})
}

func TestStopDuringABuild(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.run(func(ctx context.Context) {
			w.must(w.engine.Set(ctx, targets("orders@aaaaaa | web@aaaaaa calls=orders")))
			w.must(w.engine.Wait(ctx, nil))
			w.engine.Building("web") // whose end nobody tells
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			w.must(w.engine.Stop(ctx))
		})
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.behave["aaaaaa"] = "hang"
		w.run(func(ctx context.Context) {
			w.must(w.engine.Set(ctx, targets("orders@aaaaaa | search external=localhost:9200")))
			short, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			err := w.engine.Wait(short, nil)
			if !errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(err.Error(), "orders is starting\n") {
				t.Error("Wait says", err)
			}
			if err := w.engine.Wait(ctx, []string{"nobody"}); err == nil {
				t.Error("waited for a service that is not there")
			}
			w.must(w.engine.Wait(ctx, []string{"search"}))
		})
		if err := w.engine.Set(t.Context(), nil); !errors.Is(err, errEnded) {
			t.Error("after the end of Run, Set says", err)
		}
	})
}

func TestHubRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		w.run(func(ctx context.Context) {
			w.must(w.engine.Set(ctx, targets(shop)))
			w.must(w.engine.Wait(ctx, nil))
		})
		before := fmt.Sprint(w.order, len(w.used))
		for range 3 {
			w.restart()
			w.run(func(ctx context.Context) {
				w.engine.Adopt(w.statuses(), w.snapshot())
				w.must(w.engine.Set(ctx, targets(shop)))
				w.must(w.engine.Wait(ctx, nil))
			})
		}
		if after := fmt.Sprint(w.order, len(w.used)); after != before {
			t.Error("something was started anew:", before, after)
		}
		w.restart()
		w.run(func(ctx context.Context) {
			w.engine.Adopt(w.statuses(), w.snapshot())
			w.must(w.engine.Stop(ctx))
			if left := w.statuses(); len(left) != 0 {
				t.Error("left running:", left)
			}
		})
	})
}

// TestAnyWishes asks for one thing after another, at any moment, on a node whose connection fails:
// the promises that world checks hold all the time, and in the end all is as it was last asked.
func TestAnyWishes(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, seed)
				w.setFlaky(seed%2 == 0)
				w.behave["eeeeee"], w.behave["ffffff"] = "exit", "before-fails"
				w.run(func(ctx context.Context) { w.wishes(ctx, 60) })
				w.restart()
				w.run(func(ctx context.Context) {
					w.engine.Adopt(w.statuses(), w.snapshot())
					w.wishes(ctx, 20)
					w.setFlaky(false)
					w.must(w.engine.Set(ctx, targets(shop)))
					w.must(w.engine.Restart(ctx, []string{"orders", "web"})) // what had failed
					w.must(w.engine.Wait(ctx, nil))
					if got := w.serving("orders"); got != "aaaaaa" {
						t.Error("at last there serve:", got)
					}
					if len(w.statuses()) != 6 {
						t.Error("at last there run:", w.statuses())
					}
					w.must(w.engine.Stop(ctx))
				})
			})
		})
	}
}

func (w *world) wishes(ctx context.Context, n int) {
	w.must(w.engine.Set(ctx, targets(shop)))
	releases := []string{"aaaaaa", "bbbbbb", "cccccc", "eeeeee", "ffffff"}
	for range n {
		w.mu.Lock()
		kind, release, pause := w.rand.IntN(10), releases[w.rand.IntN(len(releases))], time.Duration(w.rand.IntN(200))*time.Millisecond
		instances := 1 + w.rand.IntN(3)
		w.mu.Unlock()
		switch kind {
		case 0:
			w.must(w.engine.Restart(ctx, []string{"orders"}))
		case 1:
			w.engine.Building("web")
			w.engine.BuildFailed("web", "no")
		case 2:
			w.must(w.engine.Attach(ctx, "orders", "localhost:1"))
		case 3:
			w.must(w.engine.Debug(ctx, "orders", pause%2 == 0))
		case 4:
			w.engine.Resync("n1", w.statuses())
		case 5:
			w.must(w.engine.Set(ctx, targets(strings.Replace(shop, " | payments@aaaaaa", " | fresh@bbbbbb workers=w", 1))))
		default:
			w.must(w.engine.Update(ctx, targets(fmt.Sprintf("orders@%s n=%d before=migrate workers=mailer,clock calls=inventory", release, instances))[0]))
		}
		w.must(w.engine.Detach(ctx, "orders", "localhost:1"))
		time.Sleep(pause)
	}
}

func TestConfigIsChecked(t *testing.T) {
	apply := func(context.Context, fleet.Change) error { return nil }
	for _, c := range []Config{{}, {Node: "n1"}, {Node: "n1", Driver: &world{}}, {Driver: &world{}, Apply: apply}} {
		if _, err := New(c); err == nil {
			t.Errorf("made an engine of %+v", c)
		}
	}
}
