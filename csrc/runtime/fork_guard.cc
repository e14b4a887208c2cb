#include "runtime/fork_guard.h"

#include <mutex>

#include "runtime/session.h"
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#define TRITKIT_FORK 1
#endif

namespace tritkit {
namespace {

struct List {
  std::mutex mutex;
  Session* first = nullptr;
};

List& list() {
  static List* const list = new List();  // never destroyed: a session may outlive static objects
  return *list;
}

}  // namespace

void ForkGuard::add(Session* session) {
#ifdef TRITKIT_FORK
  static const int registered = pthread_atfork(before_fork, after_fork, after_fork);
  (void)registered;
#endif
  const std::lock_guard<std::mutex> lock(list().mutex);
  session->next_ = list().first;
  list().first = session;
}

void ForkGuard::remove(Session* session) {
  const std::lock_guard<std::mutex> lock(list().mutex);
  Session** link = &list().first;
  while (*link != session) link = &(*link)->next_;
  *link = session->next_;
}

void ForkGuard::before_fork() {
  list().mutex.lock();
  for (Session* session = list().first; session; session = session->next_) session->turn_.lock();
}

void ForkGuard::after_fork() {
  for (Session* session = list().first; session; session = session->next_) session->turn_.unlock();
  list().mutex.unlock();
}

}  // namespace tritkit
