// A list of all sessions. fork() waits until none of them runs, so that the child finds every lock free and every buffer whole.
#pragma once

namespace tritkit {

class Session;

class ForkGuard {
 public:
  static void add(Session* session);
  static void remove(Session* session);

 private:
  static void before_fork();
  static void after_fork();
};

}  // namespace tritkit
