// Applies the theme that this browser remembers before anything is drawn; see `device.js`.

document.documentElement.dataset.theme = localStorage.getItem("theme") ?? "system";
