/* A browser cannot show what is wrong with a field in a folded group: unfold it. */
document.addEventListener(
  'invalid',
  event => event.target.closest('details')?.setAttribute('open', ''),
  true,
);
